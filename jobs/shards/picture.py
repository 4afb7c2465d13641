"""Histograms of a data set as one picture (PNG): a small panel for each, labels beside them."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from jobs.shards.histograms import facts, quality_parts, share
from shards.draw import drawable
from shards.histogram import Distribution, Overview, Quality, Quantity

BLUE, SKY, ORANGE = "#0072b2", "#56b4e9", "#e69f00"
"""Of Okabe and Ito, which every kind of colour vision tells apart; what is not plain blue is hatched besides."""

INK, GREY, PALE = "#16161d", "#5f5f5f", "#ececec"

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": GREY,
    "text.color": INK,
    "hatch.linewidth": 0.6,
}
"""The font comes with matplotlib, so that a picture does not depend on the fonts of a machine."""

MOST_BINS = 48
LABELS_BESIDE, LONGEST_NAME = 12, 26
"""Labels beside a panel, of which a few do not fill its height; characters of a label."""

PANEL, LABELS_WIDTH, HEAD, DPI = (4.4, 2.7), 5.2, 0.75, 127
"""Inches of a panel, of the panel of labels, and of the title; pixels of an inch."""

INCH_HOLDS = 115
"""Characters of an inch at 1 pt, on the safe side."""

BEYOND = 0.05
"""Part of the axis that a bar of what lies beyond the bins takes, and that lies before it."""

THOUSANDS = FuncFormatter(lambda value, place: f"{value:,.0f}")


def draw_overview(overview: Overview, title: str, subtitle: str) -> bytes:
    """The PNG of a data set's histograms; the same overview always gives the same bytes.

    A quantity that is the same in all records is said in the second line, and has no panel.
    """
    same = [f"{quantity.name} {facts(quantity, found)}" for quantity, found in overview.distributions if not _varies(found)]
    with style.context(["default", STYLE]):
        figure = _drawn(overview)
        width, height = figure.get_size_inches()
        for text, size, depth, colour in ((title, 13, 0.3, INK), (", ".join([subtitle, *same]), 8.5, 0.54, GREY)):
            words = _cut(text, int(width * INCH_HOLDS / size))
            figure.text(0.2 / width, 1 - depth / height, words, fontsize=size, color=colour)
        for label in figure.findobj(Text):
            label.set_parse_math(False)
        image = io.BytesIO()
        FigureCanvasAgg(figure).print_png(image, metadata={"Software": None})
    return image.getvalue()


def _varies(found: Distribution) -> bool:
    return bool(found.edges) or len(found.values) > 1


def _drawn(overview: Overview) -> Figure:
    distributions = [(quantity, found) for quantity, found in overview.distributions if _varies(found)]
    panels = len(distributions) + (overview.quality is not None)
    columns = min(panels, 2 if overview.labels or panels == 4 else 3)
    rows = -(-panels // columns)
    widths = [PANEL[0]] * columns + [LABELS_WIDTH] * bool(overview.labels)
    height = PANEL[1] * max(rows, 1.5) + HEAD
    layout = ConstrainedLayoutEngine(w_pad=0.16, h_pad=0.12, rect=(0, 0, 1, 1 - HEAD / height))
    figure = Figure((sum(widths), height), dpi=DPI, facecolor="white", layout=layout)
    grid = GridSpec(rows, len(widths), figure, width_ratios=widths)
    places = [grid[divmod(place, columns)] for place in range(panels)]
    counted = "records" if overview.kind == "ecg" else "conversations"
    for place, (quantity, found) in zip(places, distributions, strict=False):
        _draw_distribution(_panel(figure, place, quantity.name, facts(quantity, found)), quantity, found, counted)
    if overview.quality is not None:
        _draw_quality(_panel(figure, places[-1], "quality", f"{counted} with"), overview.quality, overview.total)
    if overview.labels:
        _draw_labels(figure, grid[:, -1], overview, round(LABELS_BESIDE * max(rows, 1.5)))
    return figure


def _panel(figure: Figure, place: SubplotSpec, title: str, said: str) -> Axes:
    axes = figure.add_subplot(place)
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", pad=20)
    axes.annotate(said, (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", color=GREY, fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=GREY, labelcolor=INK)
    return axes


def _draw_distribution(axes: Axes, quantity: Quantity, found: Distribution, counted: str) -> None:
    if found.edges:
        _draw_bins(axes, quantity, found)
    else:
        axes.bar([f"{value:,.6g}" for value in found.values], found.counts, width=0.6, color=BLUE)
        axes.set_xlim(-0.8, max(len(found.values), 4) - 0.2)
    axes.set_xlabel(quantity.unit)
    axes.set_ylabel(f"{counted}, logarithmic" if found.is_skewed else counted)
    if found.is_skewed:
        axes.set_yscale("log")
        axes.set_ylim(0.6, None)
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(THOUSANDS)


def _draw_bins(axes: Axes, quantity: Quantity, found: Distribution) -> None:
    """Bars of the bins; those of what lies beyond stand apart, paler and hatched, with their bound under them."""
    low, high = found.edges[0], found.edges[-1]
    span = high - low
    axes.bar(found.edges[:-1], found.counts, np.diff(found.edges), align="edge", color=BLUE, edgecolor="white", linewidth=0.4)
    values = list(MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high))
    decimals = max(0, -math.floor(math.log10(values[1] - values[0]) + 1e-6))
    ticks = {value: f"{value:,.{min(decimals, 9)}f}" for value in values if low <= value <= high}
    for count, edge, sign, side in ((found.below, low, "<", -1), (found.above, high, "≥", 1)):
        if count:
            middle = edge + side * 1.5 * BEYOND * span
            axes.bar(middle, count, BEYOND * span, color=SKY, edgecolor="white", hatch="////", linewidth=0.4)
            ticks = {value: text for value, text in ticks.items() if abs(value - middle) > 0.15 * span}
            ticks[middle] = f"{sign} {edge:,.6g}"
    axes.set_xticks(list(ticks), list(ticks.values()))


def _draw_labels(figure: Figure, place: SubplotSpec, overview: Overview, places: int) -> None:
    """A bar for each label: present in blue, then unknown in hatched orange, with the counts at its end."""
    labels, total = overview.labels[:places], overview.total
    kinds = {"present": (BLUE, ""), "unknown": (ORANGE, "////")}
    if not any(label.unknown for label in labels):
        del kinds["unknown"]
    said = [f"{places} most frequent of {len(overview.labels)}"] * (len(overview.labels) > places)
    said += ["present (share) + unknown"] * (len(kinds) > 1)
    axes = _panel(figure, place, "labels" if overview.kind == "ecg" else "asked for", ", ".join(said))
    rows, start = np.arange(len(labels)), np.zeros(len(labels))
    for kind, (colour, hatch) in kinds.items():
        counts = [getattr(label, kind) for label in labels]
        axes.barh(rows, counts, 0.68, start, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4, label=kind)
        start += counts
    for row, label in enumerate(labels):
        words = f"{label.present:,} ({share(label.present, total)})" + f" + {label.unknown:,}" * bool(label.unknown)
        axes.annotate(words, (start[row], row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(rows, [_cut(label.name, LONGEST_NAME) for label in labels])
    axes.set_ylim(places - 0.4, -0.6)
    axes.set_xlim(0, max(start.max(), 1) * (1.3 if len(kinds) == 1 else 1.55))
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    if len(kinds) > 1:
        axes.legend(frameon=False, loc="lower right", fontsize=8.5)


def _draw_quality(axes: Axes, quality: Quality, total: int) -> None:
    """A bar for each thing that can be wrong, its name over it; the whole width is all records."""
    parts = quality_parts(quality)
    axes.barh(range(len(parts)), [total] * len(parts), 0.3, color=PALE)
    axes.barh(range(len(parts)), list(parts.values()), 0.3, color=BLUE)
    for row, (what, count) in enumerate(parts.items()):
        axes.annotate(what, (0, row - 0.15), (0, 3), textcoords="offset points", fontsize=8.5)
        said = f"{count:,} ({share(count, total)})" if count else "0"
        axes.annotate(said, (total, row - 0.15), (0, 3), textcoords="offset points", fontsize=8.5, ha="right")
    axes.set_xlim(0, max(total, 1))
    axes.set_ylim(len(parts) - 0.7, -0.7)
    axes.set_axis_off()


def _cut(text: str, longest: int) -> str:
    """At most so many characters; the middle is left out."""
    text = drawable(text)
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
