"""Runs as tables."""

from __future__ import annotations

import argparse
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.console import duration
from cluster.errors import RunError
from jobs.runs.state import RunState, find_runs, read_run
from shards.storage import Store

WIDE = 200
"""Columns where nobody's terminal says how many there are."""

STYLES = {"running": "green", "launched": "green", "finished": "bold", "failed": "red", "silent": "yellow", "stopped": "cyan"}


def add_options(parser: argparse.ArgumentParser, word: str) -> None:
    """What `list` and `show` take."""
    parser.add_argument("place", metavar="FOLDER" if word == "list" else "RUN", help="a folder or a URI")


def run(word: str, options: argparse.Namespace) -> int:
    """Print the tables.

    Raises:
        RunError: there is no run.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    store = Store(options.place)
    if word == "list":
        _list(store, console)
    else:
        _show(read_run(store), console)
    return 0


def _list(folder: Store, console: Console) -> None:
    names = find_runs(folder)
    if not names:
        raise RunError(f"{folder.uri}: no run lies below it; check the folder")
    table = Table("run", "stage", "state", "steps", "loss", "committed", "last word", box=None, header_style="bold")
    for name in names:
        state = read_run(folder.child(name) if name else folder)
        table.add_row(
            name or ".",
            state.stage,
            f"[{STYLES[state.state]}]{state.state}",
            _steps(state),
            "-" if state.loss is None else f"{state.loss:.4f}",
            str(state.committed[-1]) if state.committed else "-",
            _ago(state.word_s),
        )
    console.print(table)


def _show(state: RunState, console: Console) -> None:
    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    line(f"{state.uri}  {state.stage} {state.name}: {state.state}, {_steps(state)} steps, last word {_ago(state.word_s)}")
    for title, columns, rows in (
        ("attempts", ("attempt", "started", "from step"), [_attempt(attempt) for attempt in state.attempts]),
        ("events", ("event", "step", "said"), [_event(event) for event in state.events]),
        ("launches", ("submitted", "by", "id", "command"), [_launch(launch) for launch in state.launches]),
    ):
        if rows:
            table = Table(*columns, title=title, title_justify="left", title_style="bold", box=None, header_style="dim")
            for row in rows:
                table.add_row(*row)
            console.print(table)
    line(f"checkpoints at step {', '.join(map(str, state.committed))}" if state.committed else "no checkpoint yet")
    if state.failure:
        line(f"failed: {state.failure.get('said', '')} (attempt {state.failure.get('attempt', '')})")
    line(how_to_go_on(state))


def how_to_go_on(state: RunState) -> str:
    """In one sentence."""
    if state.state == "finished":
        return f"it is done; 'ecgchat export {state.uri} --out …' makes a model of it"
    if state.alive:
        return f"'ecgchat runs stop {state.uri}' lets it commit a checkpoint and end"
    return f"'ecgchat runs resume {state.uri}' goes on from step {state.committed[-1] if state.committed else 0}"


def _attempt(attempt: dict[str, Any]) -> tuple[str, ...]:
    return attempt["attempt"], attempt.get("started", ""), str(attempt["resumed_from"])


def _event(event: dict[str, Any]) -> tuple[str, ...]:
    return event["event"], str(event.get("step") or ""), event.get("said", "")


def _launch(launch: dict[str, Any]) -> tuple[str, ...]:
    return launch["submitted"], launch["launcher"], str(launch.get("id", "")), " ".join(launch["command"])


def _steps(state: RunState) -> str:
    return f"{state.done}/{state.steps}" if state.steps else str(state.done)


def _ago(moment_s: float) -> str:
    return f"{duration(max(0.0, time.time() - moment_s))} ago"
