"""What `jobs.bench.harness` measures, and the processes that it kills: `coca`, by a bare loop and by the whole harness.

python -m jobs.bench.harness_work SETTINGS.json     one attempt; its moments go to the file that ECGCHAT_BENCH_MOMENTS names
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster import metrics
from cluster.engine import build_engine
from cluster.launch import process
from cluster.launch.config import LaunchConfig
from cluster.loop import OnReport, TrainConfig, backward, global_counts, train
from cluster.stage import StepData
from cluster.world import World
from jobs.coca import CocaJob, CocaStage
from jobs.config import from_settings
from shards.storage import Store

MOMENTS = "ECGCHAT_BENCH_MOMENTS"
WARM_UP = 3
"""Steps at the beginning of each measurement that do not count."""
NEVER = 10**9


class DifferentWeightsError(RuntimeError):
    """The two loops did not do the same, so that their times cannot be compared."""


class TimedStage(CocaStage):
    """Says when its model is built and when the loop asks for the data of a step, which is when the one before is done."""

    def __init__(self, job: CocaJob, say: Callable[[str], None]) -> None:
        self.say = say
        self.model: torch.nn.Module | None = None
        super().__init__(job)

    def build_model(self) -> torch.nn.Module:
        """The model, which is kept to be looked at."""
        self.say("model")
        self.model = super().build_model()
        return self.model

    def training_data(self, world: World, state: dict[str, Any] | None) -> Generator[StepData, None, None]:
        """The same steps."""
        with closing(super().training_data(world, state)) as batches:
            for number in itertools.count():
                self.say(f"step {number}")
                yield next(batches)


class Moments:
    """Takes the times of what a stage says."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, name: str) -> None:
        """Remember when a step was asked for."""
        if name.startswith("step "):
            self.times.append(time.perf_counter())

    def seconds(self, window: int) -> float:
        """Of a step: the median of the means over so many steps each, so that what is done now and then has its share."""
        times = self.times[WARM_UP:]
        return statistics.median((after - before) / window for before, after in zip(times, times[window:], strict=False))


def compare(settings: dict[str, Any], on_report: OnReport) -> dict[str, Any]:
    """Seconds of a step by the bare loop, by the harness, and by the harness when it saves in every window, in turn.

    Args:
        settings: of a `coca` job, with `rounds` and `window` (steps) beside; its folder is the parent of the runs'.
        on_report: not called.

    Returns:
        Medians over the rounds of `bare`, `harness` and `saving` (seconds a step) and `stall` (seconds a checkpoint).

    Raises:
        DifferentWeightsError: the loops came to other weights.
    """
    process.join_deepspeed()
    rounds, window = settings.pop("rounds"), settings.pop("window")
    job = from_settings(CocaJob, settings)
    taken: dict[str, list[float]] = {"bare": [], "harness": [], "saving": [], "stall": []}
    for number in range(rounds):
        weights = {}
        for name, every in (("bare", 0), ("harness", NEVER), ("saving", window)):
            moments = Moments()
            stage = TimedStage(job, moments)
            if name == "bare":
                bare(stage, job.train)
            else:
                run = Store(f"{job.run.folder}/{name}-{number}")
                config = replace(job.train, checkpoint=replace(job.train.checkpoint, every_steps=every))
                train(stage, config, run, name, settings, on_report)
                if name == "saving":
                    taken["stall"].append(stall(run, Path(job.run.folder) / "metrics.jsonl"))
            taken[name].append(moments.seconds(window))
            assert stage.model is not None
            weights[name] = {key: value.clone() for key, value in stage.model.state_dict().items()}
        require_same(weights)
    return {name: statistics.median(values) for name, values in taken.items()}


def bare(stage: TimedStage, config: TrainConfig) -> None:
    """The same engine, stage and loader, and nothing else."""
    world = World.join()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(config.seed)
    steps = config.steps or 1
    engine = build_engine(stage.build_model(), config.engine, config.optimizer, stage.global_batch, world)
    torch.manual_seed(config.seed + 1)
    engine.train()
    with closing(stage.training_data(world, None)) as data:
        for step, batch in enumerate(itertools.islice(data, steps)):
            counts = global_counts(stage, batch, world)
            for group in engine.optimizer.param_groups:
                group["lr"] = config.optimizer.rate(step, steps)
            for micro_batch in batch.micro_batches:
                backward(engine, stage.terms(engine, micro_batch, world), counts, world)
                engine.step()


def require_same(weights: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Refuse to compare loops that learnt different things."""
    first = weights["bare"]
    for name, others in weights.items():
        differing = [key for key in first if not torch.equal(first[key], others[key])]
        if differing:
            raise DifferentWeightsError(f"the bare loop and the loop '{name}' come to other weights: {differing[0]}")


def stall(run: Store, file: Path) -> float:
    """Median seconds that training waited for a checkpoint, the last one left out: it is waited for."""
    run.download(metrics.FILE, file)
    stalls = [line["perf/checkpoint_stall_s"] for line in metrics.read(file) if "perf/checkpoint_stall_s" in line]
    return statistics.median(stalls[:-1])


def say_moment(file: Path, name: str) -> None:
    """Write down that something happens now."""
    with file.open("a") as lines:
        lines.write(json.dumps({"process": os.getpid(), "moment": name, "time": time.time()}) + "\n")


def attempt(settings: dict[str, Any], on_report: OnReport) -> dict[str, Any]:
    """One attempt at a `coca` job that writes its moments down."""
    say = partial(say_moment, Path(os.environ[MOMENTS]))
    say("worker")
    process.join_deepspeed()
    job = from_settings(CocaJob, settings)
    result = train(TimedStage(job, say), job.train, Store(job.run.folder), job.run.name, settings, on_report)
    return {"steps": result.steps}


if __name__ == "__main__":
    process.run("jobs.bench.harness_work:attempt", json.loads(Path(sys.argv[1]).read_text()), LaunchConfig(threads=1))
