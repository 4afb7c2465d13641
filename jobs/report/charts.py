"""Charts of a run, as SVG that stands in the page."""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

COLOURS = {"train": "#9ab6d3", "smooth": "#1f4e79", "eval": "#c0392b"}
PART_COLOURS = {"data": "#c0392b", "forward": "#1f4e79", "backward": "#5b8db8", "optimizer": "#a9c4dd"}
SMOOTHING, SMOOTHED_OVER = 0.1, 10
"""Least share of the newest value in the running mean that is drawn over the raw values; of few values it is a larger one."""

FROM_ZERO = 0.5
"""A loss whose lowest value is below this share of its highest is drawn from 0; else its fall would be a flat line."""


def loss_chart(lines: list[dict[str, Any]], name: str, title: str) -> str:
    """Training and validation values of one measure over the samples seen."""
    figure, axes = _axes(title, "samples seen")
    training = [(line["samples"], line[f"train/{name}"]) for line in lines if f"train/{name}" in line]
    validation = [(line["samples"], line[f"eval/{name}"]) for line in lines if f"eval/{name}" in line]
    lowest = _with_mean(axes, training, "training")
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color=COLOURS["eval"], markersize=4, linewidth=1, label="validation")
    highest = max(value for _, value in training + validation)
    if lowest < FROM_ZERO * highest:
        axes.set_ylim(0, None)
    axes.legend(frameon=False)
    return svg(figure)


def rate_chart(lines: list[dict[str, Any]], name: str, title: str) -> str:
    """How much was done in a second, step by step."""
    figure, axes = _axes(title, "step")
    _with_mean(axes, [(line["step"], line[f"perf/{name}"]) for line in lines if f"perf/{name}" in line], "")
    axes.set_ylim(0, None)
    return svg(figure)


def learning_rate_chart(lines: list[dict[str, Any]]) -> str:
    """The learning rate, step by step."""
    figure, axes = _axes("learning rate", "step")
    points = [(line["step"], line["train/learning_rate"]) for line in lines if "train/learning_rate" in line]
    axes.plot(*zip(*points, strict=True), color=COLOURS["smooth"], linewidth=1.6)
    axes.set_ylim(0, None)
    return svg(figure)


def step_time_chart(lines: list[dict[str, Any]]) -> str:
    """Where the seconds of a step went, step by step, stacked."""
    figure, axes = _axes("seconds of a step", "step")
    timed = [line for line in lines if "perf/time_step_s" in line]
    parts = list(PART_COLOURS)
    axes.stackplot(
        [line["step"] for line in timed],
        *([line[f"perf/time_{part}_s"] for line in timed] for part in parts),
        labels=parts,
        colors=[PART_COLOURS[part] for part in parts],
    )
    highest = sorted(line["perf/time_step_s"] for line in timed)[int(0.98 * (len(timed) - 1))]
    axes.set_ylim(0, 1.3 * highest)
    axes.legend(frameon=False, ncols=4, loc="upper center", fontsize=8, handlelength=1.2, columnspacing=1.2)
    return svg(figure)


def svg(figure: Figure) -> str:
    """The figure as an `<svg>` element, without what only names its maker."""
    body = io.StringIO()
    FigureCanvasSVG(figure).print_svg(body, metadata={"Date": None})
    text = body.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _axes(title: str, xlabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(xlabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _with_mean(axes: Axes, points: list[tuple[float, float]], label: str) -> float:
    """Draw values and their running mean; the lowest value of the mean."""
    places, values = zip(*points, strict=True)
    mean = _smooth(list(values))
    axes.plot(places, values, color=COLOURS["train"], linewidth=0.8)
    axes.plot(places, mean, color=COLOURS["smooth"], linewidth=1.6, label=label)
    return min(mean)


def _smooth(values: list[float]) -> list[float]:
    share = min(1.0, max(SMOOTHING, SMOOTHED_OVER / len(values)))
    mean, smoothed = values[0], []
    for value in values:
        mean += share * (value - mean)
        smoothed.append(mean)
    return smoothed
