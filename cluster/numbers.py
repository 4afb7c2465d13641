"""The numbers of each step: they stay on the device until a line is wanted, and are joined over the ranks then."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cluster.console import Watched, duration, say
from cluster.flops import peak_of_world
from cluster.stage import Stage
from cluster.timing import StepTimes, peak_memory_gb
from cluster.world import World

PACE = 0.3
"""Share of the newest steps in the pace that the time left is told from."""


@dataclass
class StepNumbers:
    """Numbers of a step that are still on the device."""

    step: int
    totals: Tensor
    """(terms,) sums over this rank."""
    counts: Tensor
    """(terms,) over all ranks."""
    weights: dict[str, float]
    """Of each term in the loss."""
    norm: Any
    rate: float
    times: StepTimes
    tokens: int
    """Tokens, FLOPs and seconds waited for data are this rank's."""
    flops: float
    wait_s: float


class Numbers:
    """What one rank keeps of the last steps. All ranks make it, and call `lines`, together.

    Args:
        stage: that is trained.
        world: the ranks.
        steps: of the whole run.
    """

    def __init__(self, stage: Stage, world: World, steps: int) -> None:
        self._stage, self._world, self._steps = stage, world, steps
        self._pending: list[StepNumbers] = []
        self._peak, self.about_mfu = peak_of_world(world)
        """FLOP/s of all accelerators; and what MFU is here, or why there is none."""
        self._watched: Watched | None = None
        self._said_at = time.monotonic()
        self._pace_s = 0.0

    def add(self, numbers: StepNumbers) -> None:
        """Keep a step's numbers."""
        self._pending.append(numbers)

    def lines(self) -> list[dict[str, Any]]:
        """A line for each step kept since the last call; rank 0's times, all ranks' losses, tokens, waiting and memory."""
        if not self._pending:
            return []
        totals = torch.stack([item.totals for item in self._pending])
        read = [[item.tokens, item.flops, item.wait_s] for item in self._pending]
        summed = self._world.sum(torch.cat([totals, totals.new_tensor(read)], 1))  # (steps, terms + 3)
        averages = (summed[:, : totals.shape[1]] / torch.stack([item.counts for item in self._pending])).tolist()
        memory = float(self._world.max(torch.tensor(peak_memory_gb(self._world.device), device=self._world.device)))
        shared = summed[:, totals.shape[1] :].tolist()
        lines = [self._line(*numbers, memory) for numbers in zip(self._pending, averages, shared, strict=True)]
        self._pending.clear()
        return lines

    def _line(self, item: StepNumbers, averages: list[float], shared: list[float], memory: float) -> dict[str, Any]:
        names = list(item.weights)
        parts = item.times.seconds()
        seconds, workers = parts["step"], self._world.size
        tokens, flops, wait = shared
        line = {
            "step": item.step,
            "samples": item.step * self._stage.global_batch,
            "train/loss": sum(item.weights[name] * value for name, value in zip(names, averages, strict=True)),
            **{f"train/loss_{name}": value for name, value in zip(names, averages, strict=True)},
            "train/learning_rate": item.rate,
            "train/gradient_norm": float(item.norm),
            "perf/samples_per_s": self._stage.global_batch / seconds,
            "perf/data_wait_share": wait / workers / seconds,
            **{f"perf/time_{part}_s": value for part, value in parts.items()},
            "perf/memory_gb": memory,
        }
        if tokens:
            line |= {"perf/tokens_per_s": tokens / seconds, "perf/tokens_per_s_gpu": tokens / seconds / workers}
        if flops and self._peak:
            line["perf/mfu"] = flops / seconds / self._peak
        return line

    def say(self, lines: list[dict[str, Any]], committed: int | None) -> None:
        """One line for people: means over some steps, and where the run stands. Rank 0 alone calls it."""
        if self._watched is None:
            counted = self._peak is None or "perf/mfu" in lines[-1]
            say(self.about_mfu if counted else f"no MFU: the stage {self._stage.name} does not count the FLOPs of its model")
            self._watched = Watched(self._stage.name, self._steps)
        self._watched.update(lines[-1]["step"], [*self._said(lines), f"committed {committed or '-'}", self._left(lines)])

    def _said(self, lines: list[dict[str, Any]]) -> list[str]:
        last, device = lines[-1], "GPU" if self._world.device.type == "cuda" else "worker"
        # Rates are of all steps together: a slow step weighs as much as it took.
        times = [line["perf/time_step_s"] for line in lines]
        rates = ("perf/samples_per_s", "perf/tokens_per_s_gpu", "perf/mfu", "perf/data_wait_share")
        mean = {
            name: statistics.fmean([line.get(name, 0.0) for line in lines], times if name in rates else None)
            for name in last
            if "/" in name
        }
        said = [
            f"loss {mean['train/loss']:.4f}",
            f"lr {last['train/learning_rate']:.2e}",
            f"grad {last['train/gradient_norm']:.2f}",
            f"{mean['perf/samples_per_s']:.1f} samples/s",
        ]
        if "perf/tokens_per_s_gpu" in mean:
            said.append(f"{mean['perf/tokens_per_s_gpu']:.0f} tokens/s/{device}")
        if "perf/mfu" in mean:
            said.append(f"MFU {mean['perf/mfu']:.1%}")
        waited, step_s = mean["perf/data_wait_share"], mean["perf/time_step_s"]
        return [*said, f"data wait {waited:.1%}", f"step {step_s:.2f} s", f"{last['perf/memory_gb']:.1f} GB"]

    def _left(self, lines: list[dict[str, Any]]) -> str:
        """How long the rest takes at the pace of the last steps, with all that lies between them: validation, checkpoints."""
        now = time.monotonic()
        newest, self._said_at = (now - self._said_at) / len(lines), now
        steps_alone = statistics.fmean(line["perf/time_step_s"] for line in lines)
        # Before the first lines lie the model's making and the first batch, which do not come again.
        self._pace_s = PACE * newest + (1 - PACE) * self._pace_s if self._pace_s else steps_alone
        return f"left {duration((self._steps - lines[-1]['step']) * self._pace_s)}"

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._watched is not None:
            self._watched.close()
