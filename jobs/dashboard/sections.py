"""What a dashboard shows, the same on a local page and at W&B: sections, and in each the measures that are drawn together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Panel:
    """One chart: the measures of `metrics.jsonl` that a pattern names, each a panel of its own."""

    pattern: str
    title: str
    """`{name}` stands for what the pattern's star stands for."""
    scale: Scale = "linear"

    def measures(self, known: Iterable[str]) -> dict[str, str]:
        """Known measures that it shows, with their titles."""
        begin = self.pattern.partition("*")[0]
        return {name: self.title.format(name=name.removeprefix(begin)) for name in known if fnmatch(name, self.pattern)}


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    name: str
    panels: tuple[Panel, ...]


SECTIONS = (
    Section(
        "loss",
        (
            Panel("train/loss", "training loss", "log"),
            Panel("train/loss_*", "training loss: {name}", "log"),
            Panel("train/gradient_norm", "gradient norm, before clipping", "log"),
            Panel("train/learning_rate", "learning rate"),
        ),
    ),
    Section(
        "speed",
        (
            Panel("perf/samples_per_s", "samples a second"),
            Panel("perf/tokens_per_s_gpu", "tokens a second and GPU (or worker)"),
            Panel("perf/mfu", "MFU"),
            Panel("perf/time_step_s", "seconds of a step", "log"),
            Panel("perf/time_forward_s", "seconds of the forward pass"),
            Panel("perf/time_backward_s", "seconds of the backward pass"),
            Panel("perf/time_optimizer_s", "seconds of the optimiser"),
            Panel("perf/checkpoint_stall_s", "seconds that a checkpoint held training up", "log"),
        ),
    ),
    Section("data", (Panel("perf/data_wait_share", "share of a step spent waiting for data"), Panel("data/*", "{name}"))),
    Section("memory", (Panel("perf/memory_gb", "largest memory of a rank, GB"),)),
    Section(
        "evaluation",
        (
            Panel("eval/loss", "validation loss", "log"),
            Panel("eval/loss_*", "validation loss: {name}", "log"),
            Panel("eval/*", "validation: {name}"),
        ),
    ),
)
"""Pictures follow them."""

PICTURES = "pictures"
