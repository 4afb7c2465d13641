"""What a run says to whoever watches: lines in a log file; in a terminal a bar too, which stays below them."""

from __future__ import annotations

import sys
import time

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text


def say(line: str) -> None:
    """A line for whoever watches; only rank 0 calls it."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def tell(line: str) -> None:
    """A line for whoever typed the command, apart from what the job prints."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def pass_on(text: str) -> None:
    """A job's output, as it comes."""
    sys.stdout.write(text)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """A time in its two largest units: 45 s, 3 min 20 s, 1 h 02 min, 2 d 03 h."""
    whole = round(seconds)
    for large, unit, small, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= large:
            return f"{whole // large} {unit} {whole % large // small:02d} {rest}"
    return f"{whole} s"


class Watched:
    """How far a run is.

    Args:
        title: of the run.
        total: steps of it.
    """

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._live: Live | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TaskProgressColumn(), expand=True
            )
            self._task = self._bar.add_task(title, total=total)
            self._live = Live(self._bar)
            self._live.start()

    def update(self, done: int, numbers: list[str]) -> None:
        """Show where the run stands."""
        if self._live is None:
            say(f"{self._title} step {done}/{self._total} ({done / self._total:.0%})  " + "  ".join(numbers))
            return
        self._bar.update(self._task, completed=done)
        self._live.update(Group(self._bar, Text("  ".join(numbers))))

    def close(self) -> None:
        """Leave the terminal as it was, with the last numbers in it."""
        if self._live is not None:
            self._live.stop()
            self._live = None
