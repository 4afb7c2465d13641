"""The worker loop: what every rank of every stage runs, under Ray, torchrun, or alone.

    a step:   data ─► counts, summed over the ranks ─► forward ─► backward ─► optimiser
    now and then:  numbers to the log · validation over the ranks · checkpoint, committed in the background

The loop never waits for the device of its own accord: losses stay there as tensors until a log line needs them.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cluster import ownership, stopping
from cluster.agreement import Agreement
from cluster.checkpoint import CheckpointConfig, Checkpoints
from cluster.console import say
from cluster.engine import EngineConfig, OptimizerConfig, build_engine, gradient_norm
from cluster.errors import AgreedError, RunError, at_least
from cluster.events import Events
from cluster.guard import Guard, GuardConfig
from cluster.markers import Marker, step_name
from cluster.numbers import Numbers, StepNumbers
from cluster.pace import Pace
from cluster.profiling import ProfileConfig, Profiler
from cluster.progress import HOST, here
from cluster.resume import check_same_frozen, check_same_settings
from cluster.scratch import scratch_folder
from cluster.stage import Stage, StepData, Term
from cluster.timing import StepTimes
from cluster.tracking import Tracker, TrackingConfig, origin
from cluster.watch import Watch, WatchConfig
from cluster.world import World
from shards.storage import Store

OnReport = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, and everything around the steps."""

    steps: int | None = None
    """Optimiser steps; None trains for `epochs`."""
    epochs: float = 1.0
    eval_every: int = 500
    """Steps between validations; one more follows the last step."""
    seed: int = 0
    engine: EngineConfig = field(default_factory=EngineConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        at_least(1, train__steps=1 if self.steps is None else self.steps, train__eval_every=self.eval_every)
        at_least(0, train__epochs=self.epochs)


@dataclass(frozen=True)
class Result:
    """How an attempt ended."""

    steps: int
    resumed_from: int
    checkpoint: str
    wandb_run: str
    world_size: int
    committed: int
    """Newest committed step, 0 where there is none."""
    stopped: str | None = None
    """Who or what asked it to end before its last step."""
    skipped_steps: int = 0
    """Steps so far whose samples taught nothing, because their loss or gradient was bad."""


def train(
    stage: Stage,
    config: TrainConfig,
    run: Store,
    name: str,
    settings: dict[str, Any],
    on_report: OnReport = lambda values: None,
) -> Result:
    """Train a stage on this rank from the run's newest committed checkpoint, or from the beginning.

    Args:
        stage: what to train.
        config: for how long, and how.
        run: the run's folder.
        name: the run's name.
        settings: the resolved configuration; a resume is refused where it changed what may not change.
        on_report: called on every rank after each validation and at the end, with the same values.

    Raises:
        RunError: the run cannot start or go on; the sentence is the same on every rank.
    """
    with scratch_folder() as scratch:
        return _Run(stage, config, run, name, settings, on_report, scratch).train()


class _Run:
    """One rank's attempt."""

    def __init__(
        self,
        stage: Stage,
        config: TrainConfig,
        run: Store,
        name: str,
        settings: dict[str, Any],
        on_report: OnReport,
        scratch: Path,
    ) -> None:
        self.stage, self.config, self.run, self.name = stage, config, run, name
        self.settings, self.on_report = settings, on_report
        self.world = World.join()
        self.local = scratch
        here.hosts = self.world.gather_objects(HOST)
        self.steps = config.steps or max(1, round(config.epochs * stage.steps_per_epoch()))
        self.checkpoints = Checkpoints(run, config.checkpoint, self.world, scratch)
        self.events = Events(run, scratch, self.world)
        self.agreement = Agreement(stage, run, self.world, self.checkpoints, self.events)
        self.profiler = Profiler(config.profile, self.world, run, scratch)
        self.tracker: Tracker | None = None
        self.frozen: dict[str, str] = {}
        """Digests of what checkpoints do not copy; known to rank 0."""
        self.numbers = Numbers(stage, self.world, self.steps)
        self.guard = Guard(config.guard, self.world)
        self.pace = Pace(config.watch, self.world, self.events, settings.get("data", {}).get("loader", {}))
        self.weights: dict[str, float] = {}
        """Of each term in the loss."""
        self.validated: tuple[int, float] | None = None
        """Step and loss of the newest validation."""
        self.validation_left = False
        """Whether the newest one was left before its end, to be done again when the run goes on."""

    def train(self) -> Result:
        """From the newest checkpoint to the last step."""
        marker = self.checkpoints.newest()
        with self.world.agreeing():
            self._check(marker)
        first = self.agreement.done = marker.step if marker else 0
        if marker is not None and first >= self.steps:
            return self._finished(marker)
        with self._asked_by_file():
            if self.agreement.to_stop():
                return self._result(first, "")
            return self._attempt(marker, first)

    def _attempt(self, marker: Marker | None, first: int) -> Result:
        source = self.checkpoints.fitting(marker, self.config.engine.zero_stage) if marker else None
        engine = self._engine(load_universal=source is not None and source.universal)
        if source is not None:
            self.checkpoints.restore(engine, source)
        try:
            self._track(first)
            self._steps(engine, first, marker.content if marker else None)
        finally:
            if self.tracker is not None:
                self.tracker.leave()
            self.numbers.close()
            self.profiler.close()
            self.checkpoints.close()
        result = self._result(first, self.tracker.run_id if self.tracker else "")
        if self.tracker is not None:
            self.tracker.close(result.checkpoint)
        return result

    def _result(self, first: int, wandb_run: str) -> Result:
        committed = self.checkpoints.committed_step or 0
        uri = self._checkpoint_uri(committed) if committed else ""
        stopped, skipped = self.agreement.stopped, self.guard.skipped
        return Result(self.steps, first, uri, wandb_run, self.world.size, committed, stopped, skipped)

    @contextmanager
    def _asked_by_file(self) -> Iterator[None]:
        """Rank 0 looks for a `stop.json` meanwhile."""
        if not self.world.main:
            yield
            return
        with closing(stopping.StopFile(self.run)) as file, stopping.noticing(file.reason):
            yield

    def _check(self, marker: Marker | None) -> None:
        """Rank 0 alone digests what is frozen, which may be large."""
        self.frozen = self.stage.frozen() if self.world.main else {}
        if marker is not None and self.world.main:
            check_same_settings(marker.content["settings"], self.settings, self.run.uri)
            check_same_frozen(marker.content["frozen"], self.frozen, self.run.uri)
        if self.world.main:
            ownership.take(self.run, self.world.attempt)

    def _finished(self, marker: Marker) -> Result:
        """A run whose last step is committed has nothing left to do."""
        if self.world.main:
            say(f"{self.stage.name}: all {self.steps} steps are done and committed; nothing to do")
        uri, run_id = self._checkpoint_uri(marker.step), marker.content["wandb_run"]
        return Result(self.steps, marker.step, uri, run_id, marker.world_size, marker.step)

    def _checkpoint_uri(self, step: int) -> str:
        return self.run.uri_of(f"checkpoints/{step_name(step)}")

    def _engine(self, load_universal: bool) -> Any:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(self.config.seed)
        model = self.stage.build_model()
        micro_batch = -(-self.stage.global_batch // (self.world.size * self.config.engine.gradient_accumulation))
        engine = build_engine(model, self.config.engine, self.config.optimizer, micro_batch, self.world, load_universal)
        # Ranks differ in what they draw while training, not in what they start from.
        torch.manual_seed(self.config.seed + 1 + self.world.rank)
        return engine

    def _track(self, first: int) -> None:
        if not self.world.main:
            return
        described = {
            "stage": self.stage.name,
            "run": self.settings,
            **self.stage.describe(),
            "frozen": self.frozen,
            "world_size": self.world.size,
            "mfu": self.numbers.about_mfu,
            "steps": self.steps,
            **origin(),
        }
        self.tracker = Tracker(
            self.run, self.config.tracking, self.name, self.stage.name, self.world.attempt, first, described, self.local
        )
        self.run.put("config.json", json.dumps(described, indent=1).encode())
        self.tracker.show(self.stage.pictures())
        begun = f"resumed from committed step {first}" if first else "from the beginning"
        line = f"{self.stage.name}: attempt {self.world.attempt}, {self.world.size} workers, {self.steps} steps, {begun}"
        if first or here.ended:
            self.events.say("resumed", line + (f"; the attempt before ended: {here.ended}" if here.ended else ""), first)
        else:
            say(line)
        self.events.write()

    def _steps(self, engine: Any, first: int, resumed: dict[str, Any] | None) -> None:
        """The steps after `first`, whose marker says where the data stands; until the last, or until somebody asks to stop."""
        config = self.config
        saved = first
        data_state: dict[str, Any] = {}
        watch = Watch(config.watch, self.run, self.world, self.events, self.local, config.checkpoint.commit_timeout_s)
        with closing(self.stage.training_data(self.world, resumed["data"] if resumed else None)) as data, watch:
            agreed = self.agreement.on(data)
            if resumed and "guard" in resumed:
                self.guard.restore(resumed["guard"])
            if resumed and resumed.get("validation_left"):
                self._validate(engine, first)
            for step in range(first + 1, self.steps + 1):
                here.step = step
                with self.profiler.step(step):
                    batch = None if self.agreement.stopped else self._step(engine, agreed, step)
                if batch is None:
                    break
                self.agreement.done, data_state, last = step, batch.state, step == self.steps
                rolled_back = not engine.was_step_applied() and self._bad_step(engine, step, batch)
                evaluate = step % config.eval_every == 0 or last
                save = step % config.checkpoint.every_steps == 0 or last or self.agreement.save_due or rolled_back
                if step % config.tracking.log_every == 0 or evaluate or save:
                    self._log()
                if evaluate:
                    self._validate(engine, step, may_stop=not last)
                if save:
                    self._save(engine, step, batch.state, wait=last)
                    saved = step
            if self.agreement.stopped:
                self._end_early(engine, saved, data_state)

    def _bad_step(self, engine: Any, step: int, batch: StepData) -> bool:
        """What the policy says of a step whose update DeepSpeed left out on every rank; whether older weights came back.

        Raises:
            AgreedError: the run is to end at it, or there were too many in a row.
        """
        config, guard = self.config.guard, self.guard
        keys = list(itertools.chain.from_iterable(self.world.gather_objects(batch.keys)))
        bad = f"{self.stage.name} step {step}: {guard.reject()}; samples {', '.join(keys[:8])}{' …' if len(keys) > 8 else ''}"
        problem = None
        if config.on_bad_loss == "stop":
            problem = f"{bad}; look at them, or set train.guard.on_bad_loss to skip or roll_back"
        elif guard.bad_in_a_row > config.max_bad_steps:
            problem = (
                f"{bad}; {guard.bad_in_a_row} bad steps in a row, more than train.guard.max_bad_steps {config.max_bad_steps}: "
                "look at them, lower the learning rate in a new run, or resume from an older checkpoint"
            )
        self._log()
        self.events.say("bad_loss", problem or f"{bad}; its update is left out, {guard.skipped} steps so far", step)
        if problem:
            self.events.upload()
            raise AgreedError(problem)
        return config.on_bad_loss == "roll_back" and self._roll_back(engine, step)

    def _roll_back(self, engine: Any, step: int) -> bool:
        """Take the weights of an earlier checkpoint, if there is one; data and steps go on where they are."""
        here.enter("checkpoint")
        self.checkpoints.wait()
        least = self.config.guard.roll_back_steps
        marker = self.checkpoints.newest_until(step - least)
        if marker is None:
            said = f"{self.stage.name} step {step}: no checkpoint of so many workers lies {least} steps back to roll back to"
            self.events.say("bad_loss", said, step)
            return False
        self.checkpoints.restore(engine, marker)
        engine.global_steps, engine.global_samples = step, step * engine.train_batch_size()
        self.guard.roll_back(marker.content["guard"], step - marker.step)
        if self.tracker is not None:
            self.tracker.undo(marker.step)
        said = f"{self.stage.name} step {step}: goes on from the weights of step {marker.step}; steps since taught nothing"
        self.events.say("rolled_back", said, step)
        return True

    def _end_early(self, engine: Any, saved: int, data_state: dict[str, Any]) -> None:
        """Leave a committed checkpoint of the last step done, so that nothing is done twice."""
        self._log()
        if self.agreement.done > saved:
            self._save(engine, self.agreement.done, data_state, wait=True)
        else:
            here.enter("checkpoint")
            self.checkpoints.wait()

    def _step(self, engine: Any, data: Iterator[StepData], step: int) -> StepData | None:
        """One step; None where it is not done because somebody asked to stop."""
        times = StepTimes(self.world.device)
        times.mark("start")
        batch = next(data, None)
        if batch is None:
            if not self.agreement.stopped:
                raise RunError(f"{self.stage.name} step {step}: this rank's data ended before the last step, {self.steps}")
            return None
        counts = global_counts(self.stage, batch, self.world)
        rate = self.config.optimizer.rate(step - 1, self.steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        times.mark("data")
        engine.train()
        totals = torch.zeros(len(counts), device=self.world.device)
        norm = None
        self.guard.begin()
        for number, micro_batch in enumerate(batch.micro_batches, start=1):
            here.enter("forward")
            terms = self.stage.terms(engine, micro_batch, self.world)
            times.mark("forward")
            here.enter("backward")
            last = number == len(batch.micro_batches)
            backward(engine, terms, counts, self.world, partial(self.guard.guarded, last=last))
            norm = gradient_norm(engine)
            times.mark("backward")
            here.enter("optimizer")
            engine.step()
            times.mark("optimizer")
            totals += torch.stack([terms[name].total.detach().float() for name in counts])
            self.weights = {name: terms[name].weight for name in counts}
        if engine.was_step_applied():
            self.guard.accept()
        norm = engine.get_global_grad_norm() if norm is None else norm
        summed = torch.stack(list(counts.values()))
        own = (batch.tokens, batch.flops, batch.wait_s)
        self.numbers.add(StepNumbers(step, totals, summed, self.weights, norm, rate, times, *own))
        return batch

    def _log(self) -> None:
        """Write the lines of the last steps."""
        here.enter("numbers")
        lines = self.numbers.lines()
        self.pace.judge(lines)
        if self.tracker is not None and lines:
            self.tracker.log(lines)
            self.numbers.say(lines, self.checkpoints.committed_step)

    def _validate(self, engine: Any, step: int, may_stop: bool = True) -> None:
        """The losses over the whole validation split, the same at any world size; nothing where it is asked to stop."""
        engine.eval()
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        with torch.no_grad():
            for batch in self.agreement.on(iter(self.stage.validation_data(self.world)), may_stop):
                for micro_batch in batch.micro_batches:
                    here.enter("validation")
                    for name, term in self.stage.terms(engine, micro_batch, self.world).items():
                        sums[name] = sums.get(name, torch.zeros((), device=self.world.device)) + term.total.float()
                        self.weights[name] = term.weight
                    for name, count in self.stage.counts(micro_batch).items():
                        counts[name] = counts.get(name, torch.zeros((), device=self.world.device)) + count
        self.validation_left = self.agreement.stopped is not None
        if self.validation_left:
            return
        names = list(sums)
        joined = self.world.sum(torch.stack([sums[name] for name in names] + [counts[name].float() for name in names])).tolist()
        averages = {name: joined[i] / max(1.0, joined[len(names) + i]) for i, name in enumerate(names)}
        loss = sum(self.weights[name] * value for name, value in averages.items())
        self.validated = (step, loss)
        values = {"eval/loss": loss, **{f"eval/loss_{name}": value for name, value in averages.items()}}
        if self.tracker is not None:
            self.tracker.log([{"step": step, "samples": step * self.stage.global_batch, **values}])
            say(
                f"{self.stage.name} step {step}/{self.steps}  validation "
                + "  ".join(f"{k} {v:.4f}" for k, v in values.items())
            )
        self.on_report({"step": step, **values})

    def _save(self, engine: Any, step: int, data: dict[str, Any], wait: bool) -> None:
        here.enter("checkpoint")
        content = {
            "data": data,
            "settings": self.settings,
            "frozen": self.frozen,
            "validation_loss": self.validated[1] if self.validated and self.validated[0] == step else None,
            "validation_left": self.validation_left,
            "guard": self.guard.state(),
            "wandb_run": self.tracker.run_id if self.tracker else None,
        }
        began = time.monotonic()
        with self.world.agreeing():
            if self.tracker is not None:
                ownership.require(self.run, self.world.attempt)
                self.tracker.upload()
        self.checkpoints.save(engine, step, content, wait)
        self.agreement.save_due = False
        if self.tracker is not None:
            stall = {"perf/checkpoint_stall_s": time.monotonic() - began}
            self.tracker.log([{"step": step, "samples": step * self.stage.global_batch, **stall}])


def global_counts(stage: Stage, batch: StepData, world: World) -> dict[str, Tensor]:
    """How much each term is over: all micro-batches of all ranks, at least 1. Known before the first backward pass."""
    local = [stage.counts(micro_batch) for micro_batch in batch.micro_batches]
    summed = world.sum(torch.stack([torch.stack([part[name].float() for part in local]).sum() for name in local[0]]))
    return dict(zip(local[0], summed.clamp(min=1).unbind(), strict=True))


def backward(
    engine: Any,
    terms: dict[str, Term],
    counts: dict[str, Tensor],
    world: World,
    guarded: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> None:
    """Gradients of the weighted averages of one micro-batch's terms.

    DeepSpeed averages gradients over the ranks, while averages over global counts want their sum.
    """
    loss = torch.stack([terms[name].weight * terms[name].total / counts[name] for name in counts]).sum()
    engine.backward(guarded(loss) * world.size, scale_wrt_gas=False)
