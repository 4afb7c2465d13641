"""What the tests run on worker processes: the `coca` job, watched or killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cluster.engine import build_engine
from cluster.launch.process import join_deepspeed
from cluster.loop import backward, global_counts, train
from cluster.stage import StepData
from cluster.world import World
from jobs.coca import CocaJob, CocaStage
from jobs.config import from_settings
from shards.storage import Store
from tests.cluster.small_stage import small

KILL_STEP = "ECGCHAT_TEST_KILL_STEP"
TRACE = "ECGCHAT_TEST_TRACE"


class WatchedStage(CocaStage):
    """Writes which samples each step used; dies once, like `kill -9`, before the step that the environment names."""

    def training_data(self, world: World, state: dict[str, Any] | None) -> Generator[StepData, None, None]:
        trace = Path(os.environ[TRACE])
        first = (state["epoch"] * self.steps_per_epoch() + state["batch"]) if state else 0
        for step, data in enumerate(super().training_data(world, state), start=first + 1):
            killed = trace / "killed"
            if world.rank == 1 and str(step) == os.environ.get(KILL_STEP) and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            with (trace / f"{world.attempt}.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "keys": data.keys}) + "\n")
            yield data


def watched(settings: dict[str, Any], on_report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The `coca` job with a `WatchedStage`."""
    join_deepspeed()
    job = from_settings(CocaJob, settings)
    return asdict(train(WatchedStage(job), job.train, Store(job.run.folder), job.run.name, settings, on_report))


def failing(settings: dict[str, Any], on_report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Fails on one rank alone, as a broken disk would."""
    if World.join().rank == 1:
        raise OSError("the disk of this rank is gone")
    torch.distributed.barrier()
    return {}


def troubled(settings: dict[str, Any], on_report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The `small` job in an environment that the settings name."""
    os.environ.update(settings.pop("environment"))
    return small(settings, on_report)


def first_gradients(settings: dict[str, Any], on_report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Loss, gradients and validation sums of the first step, for every ZeRO stage that the settings list."""
    from deepspeed.utils import safe_get_full_grad

    join_deepspeed()
    out = Path(settings.pop("out"))
    stages = settings.pop("zero_stages")
    world = World.join()
    results = {}
    for zero_stage in stages:
        settings["train"]["engine"]["zero_stage"] = zero_stage
        job = from_settings(CocaJob, settings)
        stage = CocaStage(job)
        torch.manual_seed(0)
        engine = build_engine(stage.build_model(), job.train.engine, job.train.optimizer, 1, world)
        data = stage.training_data(world, None)
        batch = next(data)
        data.close()
        counts = global_counts(stage, batch, world)
        terms = stage.terms(engine, batch.micro_batches[0], world)
        losses = {name: float(world.sum(terms[name].total.detach()) / counts[name]) for name in counts}
        backward(engine, terms, counts, world)
        gradients = {name: safe_get_full_grad(parameter) for name, parameter in engine.module.named_parameters()}
        results[zero_stage] = {"losses": losses, "gradients": {name: value.clone() for name, value in gradients.items()}}
        engine.step()
        engine.destroy()
    if world.main:
        torch.save(results, out)
    return {}
