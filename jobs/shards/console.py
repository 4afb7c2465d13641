"""The terminal of the shard tools: plain print on a pipe, progress with rate and time left on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console()

SECONDS_BETWEEN_LINES = 30.0
"""Where nobody watches a bar: the log of a batch job gets a line now and then."""


class RateColumn(ProgressColumn):
    """Pieces a second, as they come."""

    def render(self, task: Task) -> Text:
        """`1,234/s`, or nothing before the first piece."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def progress_bar() -> Progress:
    """Bar, count, rate and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def advancing(bar: Progress, task: TaskID) -> Callable[[int], None]:
    """Advance a task; off a terminal, also print how far it is, every `SECONDS_BETWEEN_LINES`."""
    said = time.monotonic()

    def advance(pieces: int) -> None:
        nonlocal said
        bar.advance(task, pieces)
        if not console.is_terminal and time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            console.print(_in_words(next(known for known in bar.tasks if known.id == task)), highlight=False, soft_wrap=True)

    return advance


def _in_words(task: Task) -> str:
    total = "" if task.total is None else f" of {task.total:,.0f}"
    rate = "" if not task.speed else f", {task.speed:,.0f}/s"
    left = "" if task.time_remaining is None else f", {task.time_remaining / 60:,.1f} min left"
    return f"{task.description}: {task.completed:,.0f}{total}{rate}{left}"
