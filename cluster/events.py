"""What happened to a run beside its numbers: said once to whoever watches, and kept in `metrics.jsonl`.

{"event": "resumed", "step": 120, "attempt": "20261120T101500-a1b2c3", "said": "attempt …, 8 workers, resumed from …"}
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from cluster import metrics
from cluster.console import say
from cluster.world import World
from shards.storage import Store

Kind = Literal[
    "bad_loss",
    "resumed",
    "rolled_back",
    "silent_rank",
    "slow_rank",
    "starved",
    "stopped",
]
"""What can happen."""


class Events:
    """The events of one attempt. Any thread of any rank may say one; rank 0 is heard.

    Args:
        run: the run's folder.
        local: scratch folder of this rank, where the tracker keeps `metrics.jsonl`.
        world: this attempt's ranks.
    """

    def __init__(self, run: Store, local: Path, world: World) -> None:
        self._store, self._file, self._world = run, local / metrics.FILE, world
        self._waiting: list[dict[str, Any]] = []
        """Lines said before the tracker has brought the earlier attempts' lines."""
        self._lock = threading.Lock()

    def say(self, kind: Kind, sentence: str, step: int | None = None) -> None:
        """A sentence to the log, and a line to the run's record."""
        if not self._world.main:
            return
        say(sentence)
        with self._lock:
            self._waiting.append({"event": kind, "step": step, "attempt": self._world.attempt, "said": sentence})
        self.write()

    def write(self) -> None:
        """Add what was said to the record, once there is one."""
        with self._lock:
            if self._waiting and self._file.exists():
                metrics.append(self._file, self._waiting)
                self._waiting.clear()

    def upload(self) -> None:
        """Bring the store's record up to date now: the process is about to end, and a failing store may not hide why."""
        with self._lock, suppress(OSError):
            if self._world.main and self._file.exists():
                self._store.upload(self._file, metrics.FILE)
