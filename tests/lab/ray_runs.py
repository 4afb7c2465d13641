"""Runs of the smallest stage on a lab's Ray cluster, and what is compared of them."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import metrics
from cluster.local import object_store
from cluster.local.object_store import ObjectStore
from jobs.config import from_settings
from shards.storage import Store
from tests.cluster.ranks import Ranks
from tests.cluster.small_stage import NOTES, SmallJob, SmallStage
from tests.cluster.states import final_state
from tests.cluster.test_order_survives import GLOBAL_BATCH, noted, small_job, training_loader
from tests.lab import namespaces
from tests.lab.namespaces import PROJECT, Host, Lab
from tests.lab.ray_machines import RayMachines, read, wait
from tests.shards.reading import expected_keys
from tests.shards.small_sets import build_small_set

BATCHES = 6
"""Of an epoch."""
EPOCHS = 40
STEPS = EPOCHS * BATCHES
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
        # rclone can lose a write for a minute while it removes folders that have become empty: nothing is deleted.
        job["train"]["checkpoint"]["keep_last"] = STEPS
        job["launch"] = {"workers": workers, "min_workers": min_workers, "resize_every_s": 5, "threads": 1}
        return job

    def submit(self, job: dict[str, Any]) -> Submitted:
        """As a user on the head: `ray job submit -- COMMAND`."""
        name = job["run"]["name"]
        (self.folder / name).mkdir(exist_ok=True)
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(job))
        command = f"python -m tests.cluster.run_ray tests.lab.workers:small {file}"
        submit = "PYTHONUNBUFFERED=1 ray job submit --address http://127.0.0.1:8265"
        words = f"cd ~/ecgchat && source .venv/bin/activate && {submit} -- {command}"
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

    def steps(self) -> list[dict[int, list[str]]]:
        """Step → keys, of each attempt."""
        return [noted(folder, size) for folder, size in zip(self.attempts(), self.sizes(), strict=True)]

    def counted(self) -> dict[int, list[str]]:
        """Step → keys, where the last attempt at a step counts."""
        return {step: keys for attempt in self.steps() for step, keys in attempt.items()}

    def sizes(self) -> list[int]:
        """Ranks of each attempt."""
        return [len(list(folder.glob("host-*"))) for folder in self.attempts()]


@contextmanager
def store_of(lab: Lab, folder: Path) -> Iterator[ObjectStore]:
    """An S3 server on a host of its own, over a folder that the host sees."""
    host = lab.add("store")
    with object_store.serve(folder, address=host.address, within=host.within) as server:
        yield server


@contextmanager
def ray_cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    """Head and two nodes, with a store that all of them reach.

    Args:
        folder: for all that they leave.
        environment: more variables of every host.
    """
    notes = folder / "notes"
    notes.mkdir()
    with namespaces.lab(shared=[folder]) as lab, store_of(lab, folder / "s3") as s3:
        bucket = folder / "s3" / s3.bucket
        build_small_set(bucket / "shards", BATCHES * GLOBAL_BATCH, 8)
        machines = RayMachines(lab, 2, {**s3.environment, NOTES: str(notes), "PYTHONPATH": str(PROJECT), **environment})
        machines.up()
        machines.wait_for({"head", "node-1", "node-2"})
        yield Cluster(machines, notes, bucket, s3.uri, str(bucket / "shards"))


def undisturbed_run(cluster: Cluster, folder: Path) -> Path:
    """The folder of the same run by two plain processes of this machine, that nothing happens to."""
    job = small_job(cluster.shards, folder / "run", epochs=EPOCHS, zero_stage=2)
    (folder / "notes").mkdir()
    with Ranks(2, "tests.cluster.small_stage:small", job, folder, **{NOTES: str(folder / "notes")}) as ranks:
        assert [rank.status for rank in ranks.wait()] == [0, 0], ranks.said()
    return folder / "run"


def lost_node(cluster: Cluster, run: Submitted) -> Host:
    """A machine with a rank of the run, not the head."""
    name = next(name for name in run.hosts() if name != "head")
    return cluster.machines.lab.hosts[name]


NOTICED = ("has been marked dead", "Deciding to resize", "Running entrypoint")
"""What Ray says when it has noticed that something has changed."""


def report(what: str, run: Submitted, attempt: int, since: float) -> None:
    """Wait for the first step of an attempt, and say what the time until then was spent on."""
    times = [since]
    known = noticed(run)
    for reached in (
        lambda: noticed(run) > known or len(run.attempts()) >= attempt,
        lambda: len(run.attempts()) >= attempt,
        lambda: read(run.log).count(": attempt ") >= attempt or run.step() > 0,
        lambda: run.step() > 0,
    ):
        run.wait(reached)
        times.append(time.monotonic())
    parts = [end - begin for begin, end in itertools.pairwise(times)]
    said = "{:.1f} s until Ray noticed, {:.1f} s until the ranks had met, {:.1f} s to restore, {:.1f} s to the first step"
    print(f"{what}: {said.format(*parts)}; {sum(parts):.1f} s in all")


def noticed(run: Submitted) -> int:
    """How often Ray said so."""
    said = read(run.log)
    return sum(said.count(words) for words in NOTICED)


def expected(cluster: Cluster, run: Submitted) -> dict[int, list[str]]:
    """Step → keys, as the order alone says."""
    job = small_job(cluster.shards, run.notes / "none", epochs=EPOCHS)
    loader = training_loader(SmallStage(from_settings(SmallJob, job)))
    steps = dict(enumerate(expected_keys(loader, STEPS), start=1))
    assert set(Counter(key for keys in steps.values() for key in keys).values()) == {EPOCHS}
    return steps


def last_state(run: Path) -> dict[str, Any]:
    """Everything in the files of the last step's checkpoint, as loaded."""
    with tempfile.TemporaryDirectory() as folder:
        state = final_state(Store(str(run)), Path(folder), STEPS)
    assert any("optim_states" in name for name in state)
    return state


def losses_of(run: Path) -> dict[int, float]:
    """Step → loss; the last attempt at a step counts."""
    return {line["step"]: line["train/loss"] for line in metrics.read(run / metrics.FILE) if "train/loss" in line}
