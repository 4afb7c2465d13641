"""Charts of one measure of several runs, as SVG: readable with a hundred thousand steps, on either scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jobs.dashboard.sections import Scale
from jobs.report.charts import svg

Values = NDArray[np.float64]

MOST_POINTS = 1200
"""Drawn of one line."""
FEW = 300
"""Points that are few enough to be seen one by one."""
COLOURS = ("#1f4e79", "#c0392b", "#1e8449", "#b9770e", "#6c3483", "#117a8b", "#7b7d7d", "#d35400")


@dataclass(frozen=True)
class Line:
    """One measure of one run."""

    run: int
    """Number of the run; decides the colour."""
    samples: Values
    values: Values


def thinned(samples: Values, values: Values, most: int = MOST_POINTS) -> tuple[Values, Values]:
    """Fewer points with the same outline: of each stretch the smallest and the largest value, in their order."""
    if len(values) <= most:
        return samples, values
    kept: list[int] = []
    for stretch in np.array_split(np.arange(len(values)), most // 2):
        part = values[stretch]
        # A value that is no number hides nothing: it is not drawn.
        low, high = (np.nanargmin(part), np.nanargmax(part)) if not np.isnan(part).all() else (0, 0)
        kept += sorted({int(stretch[low]), int(stretch[high])})
    return samples[kept], values[kept]


def running_mean(values: Values) -> Values:
    """Means over the fiftieth part of all values around each; values that are no number are left out."""
    width = max(1, len(values) // 50)
    there = np.isfinite(values)
    kernel = np.ones(width)
    total = np.convolve(np.where(there, values, 0.0), kernel, "same")
    count = np.convolve(there.astype(float), kernel, "same")
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def chart(title: str, lines: list[Line], scale: Scale, resumed: list[tuple[int, float]]) -> str:
    """One chart over the samples seen.

    Args:
        title: over it.
        lines: of each run that has the measure.
        scale: of the values; where none is above 0, a logarithmic one shows nothing and a linear one is drawn.
        resumed: number of a run, and samples where one of its attempts resumed.
    """
    figure = Figure(figsize=(4.4, 2.9), layout="constrained")
    axes = figure.add_subplot()
    for line in lines:
        colour = COLOURS[line.run % len(COLOURS)]
        if len(line.values) <= FEW:
            axes.plot(line.samples, line.values, "o-", color=colour, markersize=2, linewidth=1)
            continue
        axes.plot(*thinned(line.samples, line.values), color=colour, alpha=0.3, linewidth=0.7)
        axes.plot(*thinned(line.samples, running_mean(line.values)), color=colour, linewidth=1.5)
    for run, samples in resumed:
        axes.axvline(samples, color=COLOURS[run % len(COLOURS)], linewidth=0.8, linestyle=":")
    if scale == "log" and any((line.values > 0).any() for line in lines):
        axes.set_yscale("log")
    elif all((line.values[np.isfinite(line.values)] >= 0).all() for line in lines):
        axes.set_ylim(0, _top(lines))
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("samples seen", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    return svg(figure)


def _top(lines: list[Line]) -> float | None:
    """Where a linear scale ends: above all but the highest thousandth, so that a first slow step does not flatten the rest."""
    values = np.concatenate([line.values[np.isfinite(line.values)] for line in lines])
    highest = 1.15 * float(np.quantile(values, 0.999)) if len(values) else 0.0
    return highest or None
