"""The run that is harmed: a small stage on real shards, started as every training job is.

python -m tests.campaign.job --config FILE
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cluster.launch.process import join_deepspeed
from cluster.loop import train
from cluster.stage import StepData, Term
from cluster.world import World
from jobs.config import from_settings
from jobs.errors import one_sentence
from jobs.launch import start
from shards.loader import EcgBatch
from shards.storage import Patience, Store
from tests.cluster.small_stage import Means, Report, SmallJob, SmallStage

NOTES = "ECGCHAT_TEST_NOTES"
"""Names the folder of a run's notes, a file for each rank."""
TROUBLE = "ECGCHAT_TEST_HARM"
"""What goes wrong inside one rank, as JSON: `kind`, `rank`, `step`; nothing where it is not set."""
PACE = "ECGCHAT_TEST_PACE"
"""Seconds of each step, where it is set."""
PACE_S = 0.05
"""Else, so that uploads of checkpoints are under way while others are done."""
LONG_S = 3600
PATIENCE = Patience(deadline_s=6.0, attempt_s=4.0, longest_wait_s=1.0)
"""Of the run's folder; a real run's is 300 s."""


@dataclass(frozen=True)
class NumberedMeans(Means):
    """One rank's share of a step that knows its place in the order of the data."""

    step: int
    """From 1; 0 in validation."""


class HarmedStage(SmallStage):
    """Notes what each step uses, and does to itself what the environment says."""

    def __init__(self, job: SmallJob) -> None:
        super().__init__(job)
        self.harm: dict[str, Any] = json.loads(os.environ.get(TROUBLE, "{}"))

    def step_data(self, batch: EcgBatch, state: dict[str, Any], world: World) -> StepData:
        """As `SmallStage`, with the step's number."""
        data = super().step_data(batch, state, world)
        step = state["epoch"] * self.steps_per_epoch() + state["batch"] if state else 0
        if self._harmed("hung loader", world, step):
            time.sleep(LONG_S)
        [means] = data.micro_batches
        if self._harmed("nan", world, step):
            means = replace(means, leads=means.leads * float("nan"))
        return replace(data, micro_batches=[NumberedMeans(means.leads, means.weight, means.keys, step)])

    def terms(self, model: Any, micro_batch: NumberedMeans, world: World) -> dict[str, Term]:
        """Squared error."""
        if micro_batch.step and model.module.training:
            note(world, micro_batch.step, micro_batch.keys)
            self._suffer(world, micro_batch.step)
        error = (model(micro_batch.leads)[:, 0] - 1) ** 2
        return {"error": Term((error * micro_batch.weight).sum())}

    def counts(self, micro_batch: Means) -> dict[str, Tensor]:
        """Samples."""
        return {"error": micro_batch.weight.sum()}

    def _harmed(self, kind: str, world: World, step: int) -> bool:
        return self.harm == {"kind": kind, "rank": world.rank, "step": step}

    def _suffer(self, world: World, step: int) -> None:
        if self._harmed("error", world, step):
            raise ZeroDivisionError("nobody foresaw this")
        if self._harmed("memory", world, step):
            torch.empty(2**44)
        if self._harmed("hog", world, step):
            held = [bytearray(os.urandom(2**20)) for _ in range(2**14)]
            raise MemoryError(f"{len(held)} MiB were to be had")
        if self._harmed("deadlock", world, step):
            threading.Event().wait(LONG_S)


def note(world: World, step: int, keys: list[str]) -> None:
    """Say which samples a rank uses in a step that it begins."""
    with (Path(os.environ[NOTES]) / f"rank-{world.rank}.jsonl").open("a") as file:
        file.write(json.dumps({"attempt": world.attempt, "step": step, "keys": keys}) + "\n")
    time.sleep(float(os.environ.get(PACE, PACE_S)))


def worker(settings: dict[str, Any], on_report: Report) -> dict[str, Any]:
    """One rank."""
    join_deepspeed()
    job = from_settings(SmallJob, settings)
    store = Store(job.run.folder, PATIENCE)
    return asdict(train(HarmedStage(job), job.train, store, job.run.name, settings, on_report))


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Check the settings, then train."""
    return start(SmallJob, HarmedStage, print, "tests.campaign.job:worker", "tests.campaign.job", arguments)


if __name__ == "__main__":
    sys.exit(one_sentence(partial(main, None)))
