"""On a real Ray cluster and a real S3 server: a killed worker costs nothing, and what cannot work says so once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from cluster import metrics
from cluster.local import object_store, ray_head
from cluster.local.ray_head import RayHead
from cluster.markers import committed
from cluster.stopping import STOPPED_STATUS
from shards.storage import Store
from tests.cluster import wandb_file
from tests.cluster.small_stage import NOTES, TROUBLE
from tests.cluster.states import assert_equal, final_state
from tests.cluster.test_order_survives import GLOBAL_BATCH
from tests.cluster.test_order_survives import small_job as small_job_of
from tests.cluster.workers import KILL_STEP, TRACE
from tests.shards.small_sets import build_small_set

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


def submit(head, command, folder, **environment):
    """Status and output of `ecgchat submit`, in a process of its own: Ray reads its token once, when it is first imported."""
    with submitting(head, command, folder, **environment) as process:
        output, _ = process.communicate(timeout=300)
    return process.returncode, output


def submitting(head, command, folder, **environment):
    """`ecgchat submit`, under way."""
    words = [sys.executable, "-m", "jobs.cli", "submit", "ray", "--address", head.address, "--working-dir", str(folder), "--"]
    variables = {**os.environ, **environment}
    return subprocess.Popen(
        [*words, *command.split()], cwd=PROJECT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def train_command(worker, settings, tmp_path):
    """What a job runs that trains by a worker function with Ray Train."""
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings))
    return f"python -m tests.cluster.run_ray {worker} {file}"


def submitted(head, worker, settings, tmp_path):
    """Status and output of a job that runs a worker function with Ray Train."""
    return submit(head, train_command(worker, settings, tmp_path), PROJECT)


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

    states = [final_state(store, tmp_path / name, 16) for name, store in (("a", disturbed), ("b", undisturbed))]
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
    """Follows the test above: two attempts, one id, one offline run that holds every step once."""
    store = Store(f"{cluster[1]}/disturbed")
    run_id = json.loads(store.get("wandb_run.json"))["id"]
    [file] = [name for name in store.list("wandb") if name.endswith(".wandb")]
    assert run_id in file
    history = wandb_file.history(store.get(file))
    assert sum("data/examples" in values for values in history) == 1
    losses = [values["train/loss"] for values in history if "train/loss" in values]
    store.download(metrics.FILE, tmp_path / metrics.FILE)
    assert losses == [line["train/loss"] for line in metrics.read(tmp_path / metrics.FILE)]
    assert json.loads(store.get("config.json"))["ray_submission_id"]


def test_a_job_is_submitted_followed_and_its_status_passed_on(cluster, tmp_path):
    (tmp_path / "hello.py").write_text("import sys; print('hello from the cluster'); sys.exit(int(sys.argv[1]))")
    status, output = submit(cluster[0], "python hello.py 0", tmp_path)
    assert status == 0
    assert "hello from the cluster" in output
    for status in (3, 75):
        assert submit(cluster[0], f"python hello.py {status}", tmp_path)[0] == status


def test_a_wrong_token_is_one_sentence(cluster, tmp_path):
    (tmp_path / "token").write_text("0" * 64)
    status, output = submit(cluster[0], "true", tmp_path, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert status == 2
    assert "RAY_AUTH_TOKEN_PATH" in output.splitlines()[-1]
    assert "Traceback" not in output


def test_an_address_where_nobody_answers_is_named(tmp_path):
    status, output = submit(RayHead("http://127.0.0.1:9", {}), "true", tmp_path)
    assert status == 2
    assert "Ray at http://127.0.0.1:9: " in output
    assert "check the address" in output
    assert "Traceback" not in output


def test_more_workers_than_the_cluster_has_is_said_at_once(cluster, small_job, tmp_path):
    job = {**small_job, "launch": {"workers": 64}}
    status, output = submitted(cluster[0], "jobs.coca:worker", job, tmp_path)
    assert status == 2
    assert "launch.workers 64 want 64 CPUs, the Ray cluster has 2" in output


def test_an_error_that_all_ranks_share_is_said_once_and_not_tried_again(cluster, small_job, tmp_path):
    """The run of the first test exists; its seed may not change."""
    job = with_folder(small_job, f"{cluster[1]}/undisturbed", seed=7)
    status, output = submitted(cluster[0], "jobs.coca:worker", job, tmp_path)
    assert status == 2
    assert output.count("this run was begun with other settings (train.seed None then, 7 now)") == 1


def traces(output):
    """Lines that begin a trace; a helper of Ray's own may be cut off as a job ends, and says so in its way."""
    return [line for line in output.splitlines() if "Traceback" in line and "(PlacementGroupCleaner " not in line]


def test_the_cause_of_a_failure_for_good_is_named_once(cluster, small_job, tmp_path):
    job = {**small_job, "launch": {**small_job["launch"], "max_failures": 0}}
    status, output = submitted(cluster[0], "tests.cluster.workers:failing", job, tmp_path)
    assert status == 2
    [sentence] = [line for line in output.splitlines() if line.startswith("ecgchat: ")]
    assert "the workers failed more than launch.max_failures 0 times" in sentence
    assert "rank 1 on " in sentence
    assert "the disk of this rank is gone" in sentence
    assert not traces(output)


def troubled_job(tmp_path, **trouble):
    """The smallest job, on two workers, of which one has trouble."""
    shards = build_small_set(tmp_path / "set", 6 * GLOBAL_BATCH, 8)
    job = small_job_of(shards, tmp_path / "run") | {"launch": {"workers": 2, "threads": 1, "max_failures": 2}}
    job["train"]["watch"] = {"hang_s": 6}
    (tmp_path / "notes").mkdir()
    return job | {"environment": {NOTES: str(tmp_path / "notes"), TROUBLE: json.dumps(trouble)}}


def test_a_worker_that_is_stopped_is_named_and_the_workers_start_again(cluster, tmp_path):
    job = troubled_job(tmp_path, rank=1, step=5, what="stop", once=str(tmp_path / "once"))
    status, output = submitted(cluster[0], "tests.cluster.workers:troubled", job, tmp_path)
    assert status == 0, output[-3000:]
    assert "rank 1 on " in output
    assert "does not answer in step 5 while 1 other rank waits for it" in output
    assert not traces(output)
    [resumed] = [event for event in metrics.events(tmp_path / "run" / metrics.FILE) if event["event"] == "resumed"]
    assert "does not answer in step 5" in resumed["said"]


@pytest.mark.long
def test_memory_that_runs_out_twice_at_one_step_is_not_tried_again(cluster, tmp_path):
    job = troubled_job(tmp_path, rank=1, step=5, what="memory")
    status, output = submitted(cluster[0], "tests.cluster.workers:troubled", job, tmp_path)
    assert status != 0
    [sentence] = [line for line in output.splitlines() if line.startswith("ecgchat: ")]
    assert "step 5, forward: out of memory; " in sentence
    assert "launch.workers (2)" in sentence
    assert output.count(", from the beginning") + output.count("resumed from committed step 3") == 2
    assert not traces(output)


def stopped(cluster, job, tmp_path, tell):
    """Why a long job says that it stopped, which is told to end, with the id of its driver, once it has a checkpoint."""
    store = Store(f"{cluster[1]}/{tmp_path.name}")
    job = with_folder(job, store.uri, steps=100_000)
    deadline = time.monotonic() + 300
    with submitting(cluster[0], train_command("jobs.coca:worker", job, tmp_path), PROJECT) as process:
        while not committed(store.child("checkpoints")):
            assert process.poll() is None, process.communicate()[0][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        tell(int((tmp_path / "settings.pid").read_text()))
        output, _ = process.communicate(timeout=240)
    assert process.returncode == STOPPED_STATUS, output[-3000:]
    store.download(metrics.FILE, tmp_path / metrics.FILE)
    lines = metrics.read(tmp_path / metrics.FILE)
    assert committed(store.child("checkpoints"))[-1].step == lines[-1]["step"], "the last step is committed"
    return metrics.events(tmp_path / metrics.FILE)[-1]["said"]


def test_a_driver_that_is_asked_to_end_hands_it_on_to_its_workers(cluster, small_job, tmp_path):
    """As `ray job stop` asks."""
    said = stopped(cluster, small_job, tmp_path, lambda driver: os.kill(driver, signal.SIGTERM))
    assert said.endswith("(SIGTERM)")


def test_a_run_ends_when_one_of_its_nodes_is_about_to_be_taken_away(cluster, small_job, tmp_path):
    """The last test of this cluster, which takes no more work from here on."""
    said = stopped(
        cluster, small_job, tmp_path, lambda driver: submit(cluster[0], "python -m tests.cluster.drain_node", PROJECT)
    )
    assert "a preemption notice for node" in said


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
