"""The terminal of the shard tools: plain print on a pipe, progress with rate and time left on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console()


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
    )
