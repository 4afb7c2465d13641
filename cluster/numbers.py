"""The numbers of each step: they stay on the device until a line is wanted, and are joined over the ranks then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cluster.console import say
from cluster.stage import Stage
from cluster.timing import StepTimes, peak_memory_gb
from cluster.world import World


@dataclass
class StepNumbers:
    """Numbers of a step that are still on the device."""

    step: int
    totals: Tensor
    """(terms + 1,) sums over this rank: of each term, and tokens read."""
    counts: Tensor
    """(terms,) over all ranks."""
    weights: dict[str, float]
    """Of each term in the loss."""
    norm: Any
    rate: float
    times: StepTimes
    wait_s: float


class Numbers:
    """What one rank keeps of the last steps.

    Args:
        stage: that is trained.
        world: the ranks, which all call `lines` together.
        steps: of the whole run.
    """

    def __init__(self, stage: Stage, world: World, steps: int) -> None:
        self._stage, self._world, self._steps = stage, world, steps
        self._pending: list[StepNumbers] = []

    def add(self, numbers: StepNumbers) -> None:
        """Keep a step's numbers."""
        self._pending.append(numbers)

    def lines(self) -> list[dict[str, Any]]:
        """A line for each step kept since the last call, the same on every rank but for its own times."""
        if not self._pending:
            return []
        totals = self._world.sum(torch.stack([item.totals for item in self._pending]))
        averages = (totals[:, :-1] / torch.stack([item.counts for item in self._pending])).tolist()
        tokens = totals[:, -1].tolist()
        lines = [self._line(*numbers) for numbers in zip(self._pending, averages, tokens, strict=True)]
        self._pending.clear()
        return lines

    def _line(self, item: StepNumbers, averages: list[float], tokens: float) -> dict[str, Any]:
        names = list(item.weights)
        seconds = item.times.seconds()
        loss = sum(item.weights[name] * value for name, value in zip(names, averages, strict=True))
        return {
            "step": item.step,
            "samples": item.step * self._stage.global_batch,
            "train/loss": loss,
            **{f"train/loss_{name}": value for name, value in zip(names, averages, strict=True)},
            "train/learning_rate": item.rate,
            "train/gradient_norm": float(item.norm),
            "perf/samples_per_s": self._stage.global_batch / seconds["step"],
            **({"perf/tokens_per_s": tokens / seconds["step"]} if tokens else {}),
            "perf/data_wait_share": item.wait_s / seconds["step"],
            **{f"perf/time_{part}_s": value for part, value in seconds.items()},
            "perf/memory_gb": peak_memory_gb(self._world.device),
        }

    def say(self, lines: list[dict[str, Any]], committed: int | None) -> None:
        """One line for people: averages over some steps, and where the run stands."""
        last, count = lines[-1], len(lines)
        seconds = sum(line["perf/time_step_s"] for line in lines) / count
        wait = sum(line["perf/data_wait_share"] for line in lines) / count
        say(
            f"{self._stage.name} step {last['step']}/{self._steps} ({last['step'] / self._steps:.0%})  "
            f"loss {sum(line['train/loss'] for line in lines) / count:.4f}  lr {last['train/learning_rate']:.2e}  "
            f"grad {last['train/gradient_norm']:.2f}  {self._stage.global_batch / seconds:.1f} samples/s  "
            f"step {seconds:.2f} s  data wait {wait:.1%}  {last['perf/memory_gb']:.1f} GB  committed {committed or '-'}  "
            f"left {(self._steps - last['step']) * seconds:.0f} s"
        )
