"""The rows of a benchmark: how they are timed, compared and written.

A ratio is always so that larger is better: ours/theirs for rates, theirs/ours for times and costs.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One line of a benchmark."""

    name: str
    value: float | str
    """Ours, or why it could not be measured."""
    unit: str
    against: float | None = None
    """The peer's, in the same unit."""
    ratio: float | None = None
    aim: float | None = None


def against_peer(name: str, ours: float, theirs: float, unit: str, aim: float) -> Row:
    """A rate of ours beside a peer's."""
    return Row(name, ours, unit, theirs, ours / theirs, aim)


def not_measured(name: str, why: str) -> Row:
    """A line that says why there is no figure."""
    return Row(name, why, "")


def seconds_in_turn(
    works: Mapping[str, Callable[[], object]], times: int, before: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """Median wall-clock seconds of each piece of work, all of them in turn, so that a busy machine is busy for all.

    Args:
        works: name → what is timed.
        times: how often each is done.
        before: done before each, and not timed.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(times):
        for name, work in works.items():
            before()
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def show(rows: Sequence[Row], title: str, json_file: Path | None) -> None:
    """Print the rows as a table, and write them to a file where one is named."""
    table = Table("", "ours", "against", "unit", "ratio", "aim", title=title)
    for row in rows:
        table.add_row(row.name, _figure(row.value), _figure(row.against), row.unit, _times(row.ratio), _times(row.aim))
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _figure(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"
