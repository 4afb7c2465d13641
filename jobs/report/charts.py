"""Charts of a run, as SVG that stands in the page."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = {"train": "#9ab6d3", "smooth": "#1f4e79", "eval": "#c0392b"}
PART_COLOURS = {"data": "#c0392b", "forward": "#1f4e79", "backward": "#5b8db8", "optimizer": "#a9c4dd"}
SMOOTHING = 0.1
"""Share of the newest value in the running mean that is drawn over the raw losses."""


def loss_chart(lines: list[dict[str, Any]], name: str, title: str) -> str:
    """Training and validation values of one measure over the samples seen."""
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    training = [(line["samples"], line[f"train/{name}"]) for line in lines if f"train/{name}" in line]
    validation = [(line["samples"], line[f"eval/{name}"]) for line in lines if f"eval/{name}" in line]
    samples, values = zip(*training, strict=True)
    axes.plot(samples, values, color=COLOURS["train"], linewidth=0.8)
    axes.plot(samples, _smooth(list(values)), color=COLOURS["smooth"], linewidth=1.6, label="training")
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color=COLOURS["eval"], markersize=4, linewidth=1, label="validation")
    axes.set(title=title, xlabel="samples seen", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def step_time_chart(lines: list[dict[str, Any]]) -> str:
    """Where the seconds of a step went, step by step, stacked."""
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    timed = [line for line in lines if "perf/time_step_s" in line]
    parts = list(PART_COLOURS)
    axes.stackplot(
        [line["step"] for line in timed],
        *([line[f"perf/time_{part}_s"] for line in timed] for part in parts),
        labels=parts,
        colors=[PART_COLOURS[part] for part in parts],
    )
    highest = sorted(line["perf/time_step_s"] for line in timed)[int(0.98 * (len(timed) - 1))]
    axes.set(title="seconds of a step", xlabel="step", ylim=(0, 1.3 * highest))
    axes.legend(frameon=False, ncols=4, loc="upper center", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element."""
    body = io.StringIO()
    FigureCanvasSVG(figure).print_svg(body, metadata={"Date": None})
    text = body.getvalue()
    return text[text.index("<svg") :]


def _smooth(values: list[float]) -> list[float]:
    mean, smoothed = values[0], []
    for value in values:
        mean += SMOOTHING * (value - mean)
        smoothed.append(mean)
    return smoothed
