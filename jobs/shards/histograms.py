"""Histograms of a data set in the terminal, as text of at most a given width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from shards.histogram import Distribution, LabelCount, Quality, Quantity
from shards.plausibility import LARGEST_RESIDUAL
from shards.record import SPLITS

NARROWEST = 50
"""Characters of a line, at the least."""

HEIGHT, WIDEST_BIN = 6, 4
"""Lines and characters of the bars of a histogram."""

WIDEST_BAR, NARROWEST_BAR, WIDEST_NAME = 40, 8, 32
"""Characters of a lying bar, and of a label's name that the splits must leave room for."""

RISING, GROWING = " ▁▂▃▄▅▆▇█", " ▏▎▍▌▋▊▉█"
"""Eighths of a character, upwards and to the right."""

BAR, FRAME, NAME = "cyan", "bright_black", "bold"
"""Styles."""


def most_bins(width: int) -> int:
    """Bins that find room beside the scale and what lies beyond them."""
    return min(48, width - 38)


def histogram_text(quantity: Quantity, found: Distribution, width: int) -> Text:
    """A distribution as lines of at most `width` characters (50 or more), for up to `most_bins(width)` bins."""
    _check_width(width)
    lines = [_head(quantity, facts(quantity, found), width)]
    if found.edges:
        lines += _standing(found, width)
    elif len(found.values) > 1:
        lines += _lying(quantity, found, width)
    return Text("\n").join(lines)


def facts(quantity: Quantity, found: Distribution) -> str:
    """A distribution in a few words: its extremes and median, and how many samples have no value."""
    if not found.known:
        return f"all {found.missing:,} {quantity.none}"
    missing = [f"{found.missing:,} {quantity.none}"] * bool(found.missing)
    if len(found.values) != 1:
        what = [f"{number(found.least)} to {number(found.greatest)} {quantity.unit}", f"median {number(found.median)}"]
    else:
        what = [f"{found.values[0]:,.6g} {quantity.unit} in {'' if missing else 'all '}{found.known:,}"]
    return ", ".join([*what, *missing])


def quality_parts(quality: Quality) -> dict[str, int]:
    """What can be wrong with a record → how many records it is wrong with."""
    parts = {
        "missing leads": quality.missing_leads,
        "flat leads": quality.flat_leads,
        f"{'other ' * bool(quality.missing_leads)}invalid samples": quality.invalid_samples,
    }
    return parts | {f"limb residual above {LARGEST_RESIDUAL:g}": quality.limb_leads} if quality.with_limb_leads else parts


def quality_sentence(quality: Quality, total: int) -> str:
    """What is visibly wrong with the signals, and in how many records."""
    parts = quality_parts(quality)
    some = [f"{count:,} ({share(count, total)}) with {what}" for what, count in parts.items() if count]
    none = [what for what, count in parts.items() if not count]
    unknown = total - quality.with_limb_leads
    return "; ".join(
        [", ".join(some)] * bool(some)
        + [f"none with {', '.join(none[:-1])}{' or ' * (len(none) > 1)}{none[-1]}" for _ in none[:1]]
        + [f"limb residual unknown in {unknown:,}"] * bool(unknown)
    )


def label_text(labels: Sequence[LabelCount], total: int, heading: tuple[str, str], width: int) -> Text:
    """Labels with counts, the share of all as a bar, the counts in each split where there is room, and unknown ones if any.

    Args:
        labels: in the order of the lines.
        total: what is 100 %.
        heading: what the labels are, and what is counted.
        width: characters of a line at the most, 50 or more.
    """
    _check_width(width)
    counts = {heading[1]: [f"{label.present:,}" for label in labels], "share": [share(x.present, total) for x in labels]}
    more: dict[str, list[str]] = {name: [f"{label.splits[place]:,}" for label in labels] for place, name in enumerate(SPLITS)}
    unknown = {"unknown": [f"{label.unknown:,}" for label in labels]} if any(label.unknown for label in labels) else {}
    names = [printable(name) for name in (heading[0], *(label.name for label in labels))]
    longest = max(map(cell_len, names))
    if width - _size({**counts, **more, **unknown}) < min(longest, WIDEST_NAME) + 2 + NARROWEST_BAR:
        more = {}
    more |= unknown
    room = width - _size(counts) - _size(more) - 2
    name = min(longest, room - NARROWEST_BAR)
    bar = min(WIDEST_BAR, room - name)
    bars = ["", *(_grown(label.present / max(total, 1), bar) for label in labels)]
    lines = [
        Text(f"{set_cell_size(_cut(label, name), name)}{before}  ").append(grown.ljust(bar), BAR).append(after)
        for label, before, grown, after in zip(names, _joined(counts, labels), bars, _joined(more, labels), strict=True)
    ]
    lines[0].stylize(NAME)
    return Text("\n").join(map(_stripped, lines))


def number(value: float) -> str:
    """Three digits of a value; a whole one, or a large one, with all before the point."""
    return f"{value:,.0f}" if abs(value) < 1e9 and (value == round(value) or abs(value) >= 100) else f"{value:.3g}"


def printable(text: str) -> str:
    """Text whose characters all have a place on the line: what would steer the terminal is a space."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def share(count: int, total: int) -> str:
    """Per cent, to a tenth."""
    return f"{count / max(total, 1):.1%}"


def _check_width(width: int) -> None:
    if width < NARROWEST:
        raise ValueError(f"histograms: expected a width of at least {NARROWEST} characters, found {width}")


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _stripped(line: Text) -> Text:
    line.rstrip()
    return line


def _head(quantity: Quantity, said: str, width: int) -> Text:
    """Name, column of the index, and facts at the right; on a line of their own where one has no room for all."""
    head = Text.assemble((quantity.name, NAME), (f" ({quantity.column})", FRAME))
    room = width - len(head)
    return _stripped(head.append(said.rjust(room) if len(said) < room - 1 else f"\n{_cut(said, width):>{width}}"))


def _size(columns: dict[str, list[str]]) -> int:
    return sum(2 + max(map(len, [title, *cells])) for title, cells in columns.items())


def _joined(columns: dict[str, list[str]], rows: Sequence[object]) -> list[str]:
    """The heading and every row of some columns, each cell to the right."""
    lines = [""] * (1 + len(rows))
    for title, cells in columns.items():
        size = 2 + max(map(len, [title, *cells]))
        lines = [line + cell.rjust(size) for line, cell in zip(lines, [title, *cells], strict=True)]
    return lines


def _grown(part: float, width: int) -> str:
    """A lying bar; what is above 0 can be seen."""
    eighths = max(round(part * width * 8), int(part > 0))
    return ("█" * (eighths // 8) + GROWING[eighths % 8]).rstrip()


def _lying(quantity: Quantity, found: Distribution, width: int) -> list[Text]:
    """A line for each of a few values."""
    values = [f"  {value:,.6g} {quantity.unit}" for value in found.values]
    columns = {"": [f"{count:,}" for count in found.counts], " ": [share(count, found.known) for count in found.counts]}
    name = max(map(len, values))
    bar = min(WIDEST_BAR, width - name - _size(columns) - 2)
    rows = zip(values, _joined(columns, values)[1:], found.counts, strict=True)
    return [Text(f"{value:>{name}}{cells}  ").append(_grown(count / found.known, bar), BAR) for value, cells, count in rows]


def _standing(found: Distribution, width: int) -> list[Text]:
    """Bars side by side over an axis; what is below and above the bins stands apart at its ends."""
    scale, most = _scale(found), max(found.below, *found.counts, found.above)
    eighths = [_eighths(count, most, found.is_skewed) for count in (found.below, *found.counts, found.above)]
    places = _decimals(_step(found))
    below = f"< {_tick(found.edges[0], places)}" if found.below else ""
    above = f"≥ {_tick(found.edges[-1], places)}" if found.above else ""
    gutter = max(map(len, [*scale.values(), f"{found.known + found.missing:,}"]))  # the same for all of a data set
    ends = sum(len(label) + 2 for label in (below, above) if label)
    wide = min(WIDEST_BIN, (width - gutter - 2 - ends) // len(found.counts))
    left, right = _apart(eighths[0], below, wide), _apart(eighths[-1], above, wide)[::-1]
    bars = [*left, *(eighth for eighth in eighths[1:-1] for _ in range(wide)), *right]
    axis, labels = _axis(found, wide, below, above)
    lines = [
        Text(f"{scale.get(row, ''):>{gutter}} ┤", FRAME).append("".join(RISING[min(max(x - 8 * row, 0), 8)] for x in bars), BAR)
        for row in range(HEIGHT - 1, -1, -1)
    ]
    lines += [Text(f"{scale[-1]:>{gutter}} ┼{axis}", FRAME), Text(f"{'':>{gutter}}  {labels}", FRAME)]
    return [_stripped(line) for line in lines]


def _eighths(count: int, most: int, skewed: bool) -> int:
    """Height of a bar in eighths of a line; what is above 0 can be seen."""
    part = (1 + math.log10(count)) / (1 + math.log10(most)) if skewed and count else count / most
    return max(round(part * HEIGHT * 8), int(count > 0))


def _scale(found: Distribution) -> dict[int, str]:
    """Line from below → count that a bar ending at its top has; line -1 is the axis."""
    most = max(found.below, *found.counts, found.above)
    if not found.is_skewed:
        return {HEIGHT - 1: f"{most:,}", -1: "0"}
    powers = {_eighths(10**power, most, True) // 8 - 1: f"{10**power:,}" for power in range(1, int(math.log10(most)))}
    return {-1: "log", **powers, HEIGHT - 1: f"{most:,}"}


def _apart(eighths: int, label: str, wide: int) -> list[int]:
    """The columns of a bar over its label, with a gap after it; none without a label."""
    bar = min(wide, len(label))
    before = (len(label) - bar) // 2
    return [0] * before + [eighths] * bar + [0] * (len(label) - bar - before + 2) if label else []


def _axis(found: Distribution, wide: int, below: str, above: str) -> tuple[str, str]:
    """The axis under the bars with its ticks, and the line of their values."""
    left, right, length = "  " * bool(below), "  " * bool(above), wide * len(found.counts)
    marks = list("─" * len(below) + left + "─" * length + right + "─" * len(above))
    values = list(below + left + " " * length + right + above)
    every = _tick_every(found, wide)
    first = round(found.edges[0] / _step(found))
    for place, edge in enumerate(found.edges[:-1]):
        label = _tick(edge, _decimals(_step(found) * every))
        at = len(below + left) + place * wide
        begin = max(at - len(label) // 2, 0)
        around = values[max(begin - 1, 0) : begin + len(label) + 1]
        if (first + place) % every == 0 and begin + len(label) <= len(values) and not "".join(around).strip():
            marks[at] = "┬"
            values[begin : begin + len(label)] = label
    return "".join(marks), "".join(values)


def _tick_every(found: Distribution, wide: int) -> int:
    """How many bins lie between two ticks, 1, 2 or 5 times a power of ten, so that their values do not touch."""
    choices = [digit * 10**power for power in range(3) for digit in (1, 2, 5)]
    for every in choices:
        longest = max(len(_tick(edge, _decimals(_step(found) * every))) for edge in found.edges)
        if every * wide >= longest + 2:
            break
    return every


def _step(found: Distribution) -> float:
    return found.edges[1] - found.edges[0]


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-6))


def _tick(value: float, decimals: int) -> str:
    text = f"{value:,.{min(decimals, 9)}f}"
    return text if len(text) <= 9 else f"{value:.3g}"
