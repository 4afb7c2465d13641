"""The smallest stage, on a rank that is asked to stop at a chosen moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.checkpoint import Checkpoints
from cluster.launch.process import join_deepspeed
from cluster.loop import train
from cluster.stage import StepData
from cluster.world import World
from jobs.config import from_settings
from shards.loader import EcgBatch
from shards.storage import StorageError, Store
from tests.cluster.small_stage import Report, SmallJob, SmallStage

MOMENT = "ECGCHAT_TEST_MOMENT"
"""`a step`: the fifth, or the second `validation`, `save` or `upload`; on rank 1."""


class AskedStage(SmallStage):
    """Asks while it takes data, or in the middle of a validation."""

    validations = 0

    def step_data(self, batch: EcgBatch, state: dict[str, Any], world: World) -> StepData:
        """A step's, and a signal with the fifth."""
        if self.made == 4:
            ask_at("a step", world)
        return super().step_data(batch, state, world)

    def validation_data(self, world: World) -> Iterator[StepData]:
        """The samples, and a signal before the second step's."""
        self.validations += 1
        for number, batch in enumerate(super().validation_data(world)):
            if number == 1 and self.validations == 2:
                ask_at("validation", world)
            yield batch


def ask_at(moment: str, world: World) -> None:
    """A signal from this process to itself, where this is the moment."""
    if world.rank == 1 and os.environ.get(MOMENT) == moment:
        os.kill(os.getpid(), signal.SIGUSR1)


def asked_while(moment: str, method: str) -> None:
    """Ask as a method of checkpoints begins its second call."""
    original, calls = getattr(Checkpoints, method), []

    def asking(self: Checkpoints, *arguments: Any) -> Any:
        calls.append(method)
        if len(calls) == 2:
            ask_at(moment, self._world)
        return original(self, *arguments)

    setattr(Checkpoints, method, asking)


def asked(settings: dict[str, Any], on_report: Report) -> dict[str, Any]:
    """One rank of a `SmallJob`."""
    asked_while("save", "save")
    asked_while("upload", "_upload_and_commit")
    join_deepspeed()
    job = from_settings(SmallJob, settings)
    return asdict(train(AskedStage(job), job.train, Store(job.run.folder), job.run.name, settings, on_report))


def refused(settings: dict[str, Any], on_report: Report) -> dict[str, Any]:
    """One rank of a `SmallJob` whose store is full when rank 1 uploads its part of step 6."""
    upload = Store.upload

    def refuse(self: Store, source: Path, name: str) -> None:
        if name.startswith("step-000006/") and "/rank-00001/" in name:
            raise StorageError(f"{self.uri_of(name)}: no space left; make room")
        upload(self, source, name)

    Store.upload = refuse  # type: ignore[method-assign]
    return asked(settings, on_report)
