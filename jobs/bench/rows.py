"""The rows of a benchmark: how they are timed, compared and written.

A ratio is always so that larger is better: ours/theirs for rates, theirs/ours for times and costs.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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


def against_cost(name: str, ours: float, theirs: float, unit: str, aim: float) -> Row:
    """A time or another cost of ours beside a peer's."""
    return Row(name, ours, unit, theirs, theirs / ours, aim)


def not_measured(name: str, why: str) -> Row:
    """A line that says why there is no figure."""
    return Row(name, why, "")


def seconds_in_turn(
    works: Mapping[str, Callable[[], object]],
    times: int,
    before: Callable[[], object] = lambda: None,
    on_round: Callable[[int, Mapping[str, float]], object] = lambda number, seconds: None,
) -> dict[str, float]:
    """Median wall-clock seconds of each piece of work, all of them in turn, so that a busy machine is busy for all.

    Args:
        works: name → what is timed.
        times: how often each is done.
        before: done before each, and not timed.
        on_round: told each round's number, from 1, and its seconds.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(1, times + 1):
        for name, work in works.items():
            before()
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
        on_round(number, {name: values[-1] for name, values in taken.items()})
    return {name: statistics.median(values) for name, values in taken.items()}


@contextmanager
def on_cores(cores: Iterable[int]) -> Iterator[None]:
    """This process, all its threads and whatever they start on these cores while the context lasts."""
    before, wanted = os.sched_getaffinity(0), set(cores)

    def move(to: set[int]) -> None:
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.sched_setaffinity(int(thread), to)

    move(wanted)
    try:
        yield
    finally:
        move(before)


def leave_page_cache(files: Iterable[Path]) -> None:
    """Have the system forget files, so that they are read from the disk again."""
    os.sync()
    for path in files:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


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
