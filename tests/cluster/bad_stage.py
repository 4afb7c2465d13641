"""The smallest stage, with steps whose loss or gradient is bad, on one engine after another."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from cluster.launch.process import join_deepspeed
from cluster.loop import train
from cluster.stage import Term
from cluster.world import World
from jobs.config import from_settings
from shards.storage import Store
from tests.cluster.small_stage import Means, Report, SmallJob, SmallStage

BAD = "ECGCHAT_TEST_BAD"
"""Step → `nan`, `huge` or `gradient`, as JSON; on the last rank alone."""


class BadStage(SmallStage):
    """Its steps are bad as the environment says."""

    def terms(self, model: Any, micro_batch: Means, world: World) -> dict[str, Term]:
        """The error, made bad."""
        kind = json.loads(os.environ[BAD]).get(str(model.global_steps + 1))
        [(name, term)] = super().terms(model, micro_batch, world).items()
        bad = model.module.training and world.rank == world.size - 1
        return {name: Term(worse(term.total, kind if bad else None))}


def worse(total: Tensor, kind: str | None) -> Tensor:
    """A loss that is bad in one way."""
    if kind == "gradient":  # 0 with a slope that is not finite
        return total + torch.sqrt(total * 0)
    return total * {"nan": float("nan"), "huge": 1e6, None: 1.0}[kind]


def bad(settings: dict[str, Any], on_report: Report) -> dict[str, Any]:
    """One rank of a `SmallJob`, for each engine that the settings list."""
    join_deepspeed()
    result = {}
    folder, engines = settings["run"]["folder"], settings.pop("engines")
    for zero_stage, precision in engines:
        settings["train"]["engine"] = {"zero_stage": zero_stage, "precision": precision}
        settings["run"]["folder"] = f"{folder}/{zero_stage}-{precision}"
        job = from_settings(SmallJob, settings)
        run = Store(job.run.folder)
        result = asdict(train(BadStage(job), job.train, run, job.run.name, settings, on_report))
    return result
