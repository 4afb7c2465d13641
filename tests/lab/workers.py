"""What the tests run on the hosts of a lab: the smallest stage, whose every attempt notes its samples and its hosts."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.world import World
from tests.cluster import small_stage
from tests.cluster.small_stage import NOTES, Report

PACE = "pace"
"""File in the folder of a run's notes: seconds that each step takes longer; read anew in each step."""


def small(settings: dict[str, Any], on_report: Report) -> dict[str, Any]:
    """One rank of a `SmallJob`; its notes go to a folder of this attempt below the run's, which all hosts see."""
    world = World.join()
    folder = Path(os.environ[NOTES]) / settings["run"]["name"] / world.attempt
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"host-{world.rank}").write_text(socket.gethostname())
    os.environ[NOTES] = str(folder)
    small_stage.note = paced(small_stage.note, folder.parent / PACE)
    return small_stage.small(settings, on_report)


def paced(note: Callable[[int, int, list[str]], None], pace: Path) -> Callable[[int, int, list[str]], None]:
    """A note that takes as long as a file says."""

    def noted(rank: int, step: int, keys: list[str]) -> None:
        note(rank, step, keys)
        time.sleep(float(pace.read_text()) if pace.exists() else 0)

    return noted
