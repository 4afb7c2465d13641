"""`metrics.jsonl`: a line a step, with the attempt's id. It is the truth that dashboards and reports are drawn from.

{"attempt": "20261120T101500-a1b2c3", "resumed_from": 0, "started": "2026-11-20T10:15:00+00:00"}
{"attempt": "20261120T101500-a1b2c3", "step": 1, "samples": 64, "train/loss": 4.21, "perf/samples_per_s": 88.0}
{"event": "slow_rank", "step": 50, "attempt": "20261120T101500-a1b2c3", "said": "rank 3 on node-7 takes …"}
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


def append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Add lines at the end of a file; what a kill cut short stays a line of its own."""
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        mended = b"" if file.read() in (b"", b"\n") else b"\n"
        file.write(mended + b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def read(path: Path) -> list[dict[str, Any]]:
    """One line for each step that counts, in order.

    A step that was done twice counts as the last attempt did it: an attempt that resumed from step s undoes what earlier
    ones did after s, and so does a run that rolls back to the weights of step s. Lines of one step (training, validation)
    are joined. A last line that a kill cut short is left out.
    """
    steps: dict[int, dict[str, Any]] = {}
    for line in _whole_lines(path):
        if "resumed_from" in line:
            steps = {step: values for step, values in steps.items() if step <= line["resumed_from"]}
        elif "step" in line and "event" not in line:
            steps.setdefault(line["step"], {}).update(line)
    return [steps[step] for step in sorted(steps)]


def attempts(path: Path) -> list[dict[str, Any]]:
    """The first line of each attempt, in order."""
    return [line for line in _whole_lines(path) if "resumed_from" in line and "rolled_back" not in line]


def events(path: Path) -> list[dict[str, Any]]:
    """What happened beside the numbers (`cluster.events`), in order, of all attempts."""
    return [line for line in _whole_lines(path) if "event" in line]


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(text)
        except ValueError:
            continue


def cut_lines(path: Path) -> int:
    """How many lines are not whole."""
    return sum(1 for text in path.read_text(encoding="utf-8").splitlines() if text) - sum(1 for _ in _whole_lines(path))
