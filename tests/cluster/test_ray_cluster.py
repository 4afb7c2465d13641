"""`ray up ray_cluster.yaml` on three machines, and what a run on them survives: lost nodes, cut cables, nodes that come back.

Each machine is a namespace of this one (tests/lab/namespaces.py) with one CPU; its Ray is the real one, and so is its sshd.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster import metrics
from cluster.local import object_store, servers
from cluster.markers import committed
from jobs.config import from_settings
from shards.storage import Store
from tests.cluster.ranks import Ranks
from tests.cluster.small_stage import NOTES, SmallJob, SmallStage
from tests.cluster.test_order_survives import GLOBAL_BATCH, noted, small_job, training_loader
from tests.cluster.test_ray import assert_equal
from tests.lab import namespaces
from tests.lab.namespaces import PROJECT, Host
from tests.lab.ray_machines import RayMachines, read, wait
from tests.lab.workers import PACE
from tests.shards.reading import expected_keys
from tests.shards.small_sets import build_small_set

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing())),
]

EPOCHS = 40
RUN_S = 900
"""A run that takes longer hangs."""


@dataclass
class Cluster:
    """Machines under Ray, a store that all of them reach, and what they run on it."""

    machines: RayMachines
    folder: Path
    """Shown to all hosts."""
    bucket: Path
    """What the store holds, as files."""
    uri: str
    shards: str

    def settings(self, name: str, workers: int, min_workers: int = 0) -> dict[str, Any]:
        """A run of several hundred steps, a checkpoint every third."""
        job = small_job(f"{self.uri}/shards", f"{self.uri}/{name}", epochs=EPOCHS, zero_stage=2)
        job["run"]["name"] = name
        job["launch"] = {"workers": workers, "min_workers": min_workers, "resize_every_s": 5, "threads": 1}
        return job

    def submit(self, job: dict[str, Any]) -> Submitted:
        """As a user on the head: `ray job submit -- COMMAND`."""
        name = job["run"]["name"]
        (self.folder / name).mkdir()
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(job))
        command = f"python -m tests.cluster.run_ray tests.lab.workers:small {file}"
        words = f"cd ~/ecgchat && source .venv/bin/activate && ray job submit --address http://127.0.0.1:8265 -- {command}"
        log = self.folder / f"{name}.log"
        return Submitted(self.machines.head.popen(words, log), log, self.folder / name)

    def run_folder(self, name: str) -> Path:
        """Of a run, as files."""
        return self.bucket / name


@dataclass
class Submitted:
    """A job on its way."""

    process: Any
    log: Path
    notes: Path

    def attempts(self) -> list[Path]:
        """Folders of its attempts' notes, in their order."""
        return sorted(folder for folder in self.notes.iterdir() if folder.is_dir())

    def hosts(self) -> list[str]:
        """Of the ranks of the newest attempt."""
        return [file.read_text() for file in sorted(self.attempts()[-1].glob("host-*"))]

    def step(self) -> int:
        """That the newest attempt began last; 0 while it began none."""
        lines = read(self.attempts()[-1] / "rank-0.jsonl").splitlines() if self.attempts() else []
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def wait_for_step(self, step: int, attempt: int = 1) -> float:
        """Until an attempt, counted from 1, began a step; the time."""
        self.wait(lambda: len(self.attempts()) >= attempt and self.step() >= step)
        return time.monotonic()

    def wait(self, reached: Any) -> None:
        """Until something is so; an error if the job ends before."""
        wait(lambda: reached() or self.process.poll() is not None, RUN_S, lambda: read(self.log)[-4000:])
        assert reached(), read(self.log)[-4000:]

    def end(self) -> None:
        """It ends by itself, with success."""
        assert self.process.wait(RUN_S) == 0, read(self.log)[-4000:]

    def counted(self) -> dict[int, list[str]]:
        """Step → keys, where the last attempt at a step counts."""
        attempts = [noted(folder, len(list(folder.glob("host-*")))) for folder in self.attempts()]
        return {step: keys for attempt in attempts for step, keys in attempt.items()}

    def sizes(self) -> list[int]:
        """Ranks of each attempt."""
        return [len(list(folder.glob("host-*"))) for folder in self.attempts()]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Head and two nodes."""
    folder = tmp_path_factory.mktemp("cluster")
    notes = folder / "notes"
    notes.mkdir()
    with namespaces.lab(shared=[notes]) as lab, object_store.serve(folder / "s3", address=lab.gateway) as s3:
        bucket = folder / "s3" / s3.bucket
        build_small_set(bucket / "shards", 6 * GLOBAL_BATCH, 8)
        environment = {**s3.environment, NOTES: str(notes), "PYTHONPATH": str(PROJECT)}
        machines = RayMachines(lab, 2, environment)
        machines.up()
        machines.wait_for({"head", "node-1", "node-2"})
        yield Cluster(machines, notes, bucket, s3.uri, str(bucket / "shards"))


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two plain processes on this machine that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = small_job(cluster.shards, folder / "run", epochs=EPOCHS, zero_stage=2)
    (folder / "notes").mkdir()
    with Ranks(2, "tests.cluster.small_stage:small", job, folder, **{NOTES: str(folder / "notes")}) as ranks:
        assert [rank.status for rank in ranks.wait()] == [0, 0], ranks.said()
    return folder / "run"


def test_a_node_that_loses_its_power_is_replaced_and_the_run_continues_to_the_bit(cluster: Cluster, undisturbed: Path) -> None:
    run = cluster.submit(cluster.settings("replaced", workers=2))
    run.wait_for_step(20)
    victim = lost_node(cluster, run)
    before = run.attempts()
    victim.kill()
    report("power lost", run, len(before) + 1, time.monotonic())
    victim.start()
    run.end()

    assert run.sizes() == [2, 2]
    assert victim.name not in run.hosts()
    assert run.counted() == expected(cluster, run)
    assert_equal(last_state(cluster.run_folder("replaced")), last_state(undisturbed), "state")
    # The machine has power again: the cluster takes it back by itself.
    cluster.machines.wait_for({"head", "node-1", "node-2"})


def test_a_short_cut_of_a_cable_is_survived_and_a_long_one_shrinks_the_run_until_the_node_is_back(
    cluster: Cluster, undisturbed: Path
) -> None:
    run = cluster.submit(cluster.settings("elastic", workers=3, min_workers=2))
    run.wait_for_step(20)
    victim = lost_node(cluster, run)
    victim.cut_link()
    time.sleep(2)
    victim.restore_link()
    run.wait_for_step(run.step() + 10)
    assert run.sizes() == [3], "a blip costs nothing"

    (run.notes / PACE).write_text("1")
    victim.cut_link()
    report("cable cut", run, 2, time.monotonic())
    assert run.sizes() == [3, 2]
    victim.restore_link()
    report("cable mended", run, 3, time.monotonic())
    (run.notes / PACE).write_text("0")
    run.end()

    assert run.sizes() == [3, 2, 3]
    steps = [noted(folder, size) for folder, size in zip(run.attempts(), run.sizes(), strict=True)]
    assert min(steps[2]) == max(steps[1]) + 1, "growing does no step twice"
    assert run.counted() == expected(cluster, run)
    losses = [losses_of(folder) for folder in (cluster.run_folder("elastic"), undisturbed)]
    assert losses[0].keys() == losses[1].keys()
    # Of the same weights: three ranks add the same float32 numbers in another order than two.
    assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-6)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_command_is_submitted_from_a_laptop_through_the_tunnel_to_the_dashboard(cluster: Cluster, tmp_path: Path) -> None:
    laptop = cluster.machines.laptop
    (laptop.home / "work").mkdir()
    (laptop.home / "work" / "hello.py").write_text("import socket; print('hello from', socket.gethostname())")
    tunnel = laptop.popen("source ~/ecgchat/.venv/bin/activate; ray dashboard ray_cluster.yaml", tmp_path / "tunnel.log")
    try:
        wait(
            lambda: laptop.run("exec 3<>/dev/tcp/127.0.0.1/8265").returncode == 0, RUN_S, lambda: read(tmp_path / "tunnel.log")
        )
        said = cluster.machines.type(
            "cd ~/work && PYTHONPATH=~/ecgchat python -m jobs.cli submit ray --address http://127.0.0.1:8265 -- python hello.py"
        )
    finally:
        servers.stop(tunnel)
    assert "hello from head" in said


def lost_node(cluster: Cluster, run: Submitted) -> Host:
    """A machine with a rank of the run, not the head."""
    name = next(name for name in run.hosts() if name != "head")
    return cluster.machines.lab.hosts[name]


def report(what: str, run: Submitted, attempt: int, since: float) -> None:
    """Wait for the first step of an attempt, and say what the time until then was spent on."""
    run.wait(lambda: len(run.attempts()) >= attempt)
    started = time.monotonic()
    stepped = run.wait_for_step(1, attempt)
    print(f"{what}: {started - since:.1f} s until the ranks had met again, {stepped - started:.1f} s more until a step")


def expected(cluster: Cluster, run: Submitted) -> dict[int, list[str]]:
    """Step → keys, as the order alone says."""
    job = small_job(cluster.shards, run.notes / "none", epochs=EPOCHS)
    loader = training_loader(SmallStage(from_settings(SmallJob, job)))
    steps = dict(enumerate(expected_keys(loader, EPOCHS * loader.batches), start=1))
    assert set(Counter(key for keys in steps.values() for key in keys).values()) == {EPOCHS}
    return steps


def last_state(run: Path) -> dict[str, Any]:
    """Everything in the files of the last committed checkpoint, as loaded."""
    checkpoints = run / "checkpoints"
    marker = committed(Store(str(checkpoints)))[-1]
    files = [name for name in marker.files if name.endswith("_states.pt")]
    assert any("optim_states" in name for name in files)
    return {name: torch.load(checkpoints / marker.folder / name, weights_only=False) for name in files}


def losses_of(run: Path) -> dict[int, float]:
    """Step → loss; the last attempt at a step counts."""
    return {line["step"]: line["train/loss"] for line in metrics.read(run / metrics.FILE) if "train/loss" in line}
