"""On a real Ray cluster and a real S3 server: a killed worker costs nothing, and what cannot work says so once."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from cluster import metrics
from cluster.errors import RunError
from cluster.launch.ray_jobs import submit
from cluster.local import object_store, ray_head
from cluster.markers import committed
from shards.storage import Store
from tests.cluster.workers import KILL_STEP, TRACE

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Ray head and S3 server; the test process is a client of both, its jobs run on the head's environment."""
    folder = tmp_path_factory.mktemp("cluster")
    trace = folder / "trace"
    trace.mkdir()
    before = dict(os.environ)
    with object_store.serve(folder / "s3") as s3:
        for_workers = {**s3.environment, "PYTHONPATH": str(PROJECT), TRACE: str(trace), KILL_STEP: "12"}
        with ray_head.serve(folder / "ray.log", for_workers, cpus=2) as head:
            os.environ.update({**s3.environment, **head.environment})
            try:
                yield head, s3.uri, trace
            finally:
                os.environ.clear()
                os.environ.update(before)


def submitted(head, worker, settings, tmp_path):
    """Status and output of a job that runs a worker function with Ray Train."""
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings))
    said: list[str] = []
    status = submit(head.address, f"python -m tests.cluster.run_ray {worker} {file}", PROJECT, write=said.append)
    return status, "".join(said)


def run(cluster, job, name, tmp_path):
    """Run the watched job; its run folder, and which samples it used. The kill comes where `killed` does not exist yet."""
    head, base, trace = cluster
    store = Store(f"{base}/{name}")
    status, output = submitted(head, "tests.cluster.workers:watched", with_folder(job, store.uri), tmp_path)
    assert status == 0, output[-3000:]
    used = {file.name: file.read_text() for file in sorted(trace.glob("*.jsonl"))}
    for file in trace.glob("*.jsonl"):
        file.unlink()
    return store, used


def with_folder(job, uri, **train):
    return {**job, "run": {"folder": uri, "name": "small"}, "train": {**job["train"], **train}}


def test_a_killed_worker_costs_nothing(cluster, small_job, tmp_path):
    disturbed, used_disturbed = run(cluster, small_job, "disturbed", tmp_path)
    assert (cluster[2] / "killed").exists()
    undisturbed, used = run(cluster, small_job, "undisturbed", tmp_path)
    assert len(used_disturbed) == 2
    assert len(used) == 1

    states = [final_state(store, tmp_path / name) for name, store in (("a", disturbed), ("b", undisturbed))]
    assert states[0].keys() == states[1].keys()
    assert any("optim_states" in name for name in states[0])
    for name in states[0]:
        assert_equal(states[0][name], states[1][name], name)

    assert sample_counts(used_disturbed) == sample_counts(used)
    lines = [metric_lines(store, tmp_path / name) for name, store in (("c", disturbed), ("d", undisturbed))]
    for first, second in zip(*lines, strict=True):
        assert {k: v for k, v in first.items() if k.startswith(("train/", "eval/"))} == {
            k: v for k, v in second.items() if k.startswith(("train/", "eval/"))
        }
    disturbed.download(metrics.FILE, tmp_path / "metrics.jsonl")
    resumed = [line["resumed_from"] for line in metrics.attempts(tmp_path / "metrics.jsonl")]
    # Whether step 10 was committed when the kill came at step 12 is for the upload to say.
    assert resumed in ([0, 5], [0, 10])


def test_the_disturbed_run_is_one_wandb_run(cluster, small_job, tmp_path):
    """Follows the test above: two attempts, one id, one offline run that holds every step."""
    from wandb.sdk.internal.datastore import DataStore

    store = Store(f"{cluster[1]}/disturbed")
    run_id = json.loads(store.get("wandb_run.json"))["id"]
    [file] = [name for name in store.list("wandb") if name.endswith(".wandb")]
    assert run_id in file
    target = tmp_path / "run.wandb"
    store.download(file, target)
    reader = DataStore()
    reader.open_for_scan(str(target))
    records = 0
    while reader.scan_data() is not None:
        records += 1
    assert records >= small_job["train"]["steps"]


def test_a_job_is_submitted_followed_and_its_status_passed_on(cluster, tmp_path):
    head, _, _ = cluster
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "hello.py").write_text("import sys; print('hello from the cluster'); sys.exit(int(sys.argv[1]))")
    said: list[str] = []
    assert submit(head.address, "python hello.py 0", folder, write=said.append) == 0
    assert "hello from the cluster" in "".join(said)
    assert submit(head.address, "python hello.py 3", folder, write=said.append) == 1


def test_an_address_where_nobody_answers_is_named(tmp_path):
    with pytest.raises(RunError, match=r"Ray at http://127.0.0.1:9: .*check the address"):
        submit("http://127.0.0.1:9", "true", tmp_path)


def test_more_workers_than_the_cluster_has_is_said_at_once(cluster, small_job, tmp_path):
    job = {**small_job, "launch": {"workers": 64}}
    status, output = submitted(cluster[0], "jobs.coca:worker", job, tmp_path)
    assert status == 1
    assert "launch.workers 64 want 64 CPUs, the Ray cluster has 2" in output


def test_an_error_that_all_ranks_share_is_said_once_and_not_tried_again(cluster, small_job, tmp_path):
    """The run of the first test exists; its seed may not change."""
    job = with_folder(small_job, f"{cluster[1]}/undisturbed", seed=7)
    status, output = submitted(cluster[0], "jobs.coca:worker", job, tmp_path)
    assert status == 1
    assert output.count("this run was begun with other settings (train.seed 0 then, 7 now)") == 1


def final_state(run, folder):
    """Every tensor file of the last committed checkpoint, as loaded."""
    checkpoints = run.child("checkpoints")
    marker = committed(checkpoints)[-1]
    assert marker.step == 16
    state = {}
    for name in marker.files:
        if name.endswith("_states.pt"):
            checkpoints.download(f"{marker.folder}/{name}", folder / name)
            state[name] = torch.load(folder / name, weights_only=False)
    return state


def assert_equal(first, second, where):
    """Recursively: the same structure, tensors equal to the bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{where}[{i}]")
    elif isinstance(first, int | float | str | bool):
        assert first == second, where


def sample_counts(used):
    """How often each sample was used, where the last attempt counts for a step."""
    keys: dict[int, list[str]] = {}
    for _, text in sorted(used.items()):
        lines = [json.loads(line) for line in text.splitlines()]
        first = min(line["step"] for line in lines)
        keys = {step: samples for step, samples in keys.items() if step < first}
        for line in lines:
            keys.setdefault(line["step"], []).extend(line["keys"])
    return Counter(key for step, samples in keys.items() if step <= 16 for key in samples)


def metric_lines(run, folder):
    folder.mkdir()
    run.download(metrics.FILE, folder / metrics.FILE)
    return metrics.read(folder / metrics.FILE)
