"""The smallest stage over real shards: one number from the mean voltage of each lead. It notes what every step used."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cluster.launch.process import join_deepspeed
from cluster.loop import train
from cluster.stage import Picture, StepData, Term
from cluster.world import World
from jobs.config import from_settings
from jobs.launch import TrainingJob
from jobs.shard_stage import ShardDataConfig, ShardStage
from shards.loader import EcgBatch, EcgLoader, EcgWindow, LoaderConfig
from shards.mixture import Mixture
from shards.storage import Store

NOTES = "ECGCHAT_TEST_NOTES"
"""Names the folder of this attempt's notes, a file for each rank."""
WAIT_BEFORE = "ECGCHAT_TEST_WAIT_BEFORE"
"""Names the step before which all ranks wait to be killed."""
WAITING = "waiting"
"""A file beside the notes, once a rank waits."""
TROUBLE = "ECGCHAT_TEST_TROUBLE"
"""Says, in JSON, which `rank` has trouble in which `step`, `what`, and, if only `once`, which file says that it had."""
WAIT_S = 600
"""An end to it, should the test itself be killed."""
COMPILE_S = 12
"""A long first step."""
PACE_S = 0.05
"""Of each step: uploads of checkpoints are then under way when the kill comes."""

TROUBLE_WITH_DATA = ("bad data", "endless")
"""Kinds of trouble that come with a batch; the others come in the forward pass."""

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class SmallJob(TrainingJob):
    """Learn 1 from the mean voltage of each lead."""

    data: ShardDataConfig


@dataclass(frozen=True)
class Means:
    """One rank's share of a step."""

    leads: Tensor
    """(n, 12) mean millivolts."""
    weight: Tensor
    """(n,)."""
    keys: list[str]


class SmallStage(ShardStage[EcgBatch]):
    """Keeps the protocol of `cluster.stage.Stage`."""

    name = "small"
    kind = "ecg"

    def __init__(self, job: SmallJob) -> None:
        self.trouble = json.loads(os.environ.get(TROUBLE, "{}"))
        self.made = 0
        super().__init__(job, job.data, None)

    def build_model(self) -> nn.Module:
        """Large enough that each of four ranks has a part of it: DeepSpeed's universal form wants that."""
        return nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1))

    def loader(self, data: Mixture, config: LoaderConfig, world: World | None = None, training: bool = False) -> EcgLoader:
        """Less than a second of each ECG."""
        rank, size = (world.rank, world.size) if world else (0, 1)
        return EcgLoader(data, config, EcgWindow(0.4), rank, size, form="millivolts")

    def step_data(self, batch: EcgBatch, state: dict[str, Any], world: World) -> StepData:
        """Means of the samples that are there."""
        self.made += 1
        if self._is_due(world, self.made, "data"):
            begin(self.trouble["what"])
        waited_s = self._held_up(world)
        leads = torch.from_numpy(batch.ecg).nan_to_num(0).mean(-1)
        keys = [key for key in batch.keys if key]
        means = Means(leads, torch.from_numpy(batch.weight), keys)
        return StepData([means], state, batch.wait_s + waited_s, keys, tuple(batch.damaged))

    def counts(self, micro_batch: Means) -> dict[str, Tensor]:
        """Samples."""
        return {"error": micro_batch.weight.sum()}

    def terms(self, model: Any, micro_batch: Means, world: World) -> dict[str, Term]:
        """Squared error; what a step uses is noted under the optimiser's own count of steps."""
        if model.module.training:
            note(world.rank, model.global_steps + 1, micro_batch.keys)
            if self._is_due(world, model.global_steps + 1, "forward"):
                begin(self.trouble["what"])
        leads = micro_batch.leads.to(next(model.parameters()).dtype)
        error = (model(leads)[:, 0].float() - 1) ** 2
        return {"error": Term((error * micro_batch.weight).sum())}

    def _held_up(self, world: World) -> float:
        """Seconds that this rank waits in each step, where its trouble is that."""
        if self.trouble.get("what") != "slow data" or world.rank != self.trouble["rank"]:
            return 0.0
        time.sleep(self.trouble["seconds"])
        return float(self.trouble["seconds"])

    def _is_due(self, world: World, step: int, phase: str) -> bool:
        own = "data" if self.trouble.get("what") in TROUBLE_WITH_DATA else "forward"
        due = (self.trouble.get("rank"), self.trouble.get("step"), own) == (world.rank, step, phase)
        if due and "once" in self.trouble:
            had = Path(self.trouble["once"])
            due = not had.exists()
            had.touch()
        return due

    def frozen(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def describe(self) -> dict[str, Any]:
        """The data."""
        return {"data": self.data_record()}

    def pictures(self) -> list[Picture]:
        """None."""
        return []


def begin(trouble: str) -> None:
    """Fail as `trouble` says."""
    match trouble:
        case "bad data" | "error":
            raise KeyError("report")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "endless":
            while True:
                pass
        case "compile":
            time.sleep(COMPILE_S)
        case "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def note(rank: int, step: int, keys: list[str]) -> None:
    """Say which samples a rank uses in a step that it begins, and wait where a kill is sure to come."""
    if str(step) == os.environ.get(WAIT_BEFORE):
        (Path(os.environ[NOTES]) / WAITING).touch()
        time.sleep(WAIT_S)
    with (Path(os.environ[NOTES]) / f"rank-{rank}.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "keys": keys}) + "\n")
    time.sleep(PACE_S)


def small(settings: dict[str, Any], on_report: Report) -> dict[str, Any]:
    """One rank of a `SmallJob`."""
    join_deepspeed()
    job = from_settings(SmallJob, settings)
    return asdict(train(SmallStage(job), job.train, Store(job.run.folder), job.run.name, settings, on_report))
