"""A copy, in the store, of a local file that grows: fresh enough to look at while a run is under way."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from cluster.console import say
from shards.storage import Store

EVERY_S = 30.0
MOST_OF_THE_TIME = 1 / 20
"""A file that takes long to upload is uploaded less often, so that this share of the time is enough."""


class Mirror:
    """Uploads whole lines of a file, by a thread of its own, whenever there are new ones.

    Args:
        file: that only grows.
        store: where the copy lies.
        name: of the copy.
        every_s: seconds between two copies, at least.
    """

    def __init__(self, file: Path, store: Store, name: str, every_s: float = EVERY_S) -> None:
        self._file, self._store, self._name, self._every_s = file, store, name, every_s
        self._copied = -1
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="mirror", daemon=True)
        self._thread.start()

    def now(self) -> None:
        """Bring the copy up to date.

        Raises:
            StorageError: the store fails.
        """
        with self._lock:
            body = self._file.read_bytes()
            whole = body[: body.rfind(b"\n") + 1]
            if len(whole) != self._copied:
                self._store.put(self._name, whole)
                self._copied = len(whole)

    def end(self) -> None:
        """Begin no more copies."""
        self._ended.set()

    def close(self) -> None:
        """No more copies; waits for one that is under way."""
        self.end()
        self._thread.join()

    def _keep_fresh(self) -> None:
        pause, failing = self._every_s, False
        while not self._ended.wait(pause):
            began = time.monotonic()
            try:
                self.now()
                failing = False
            except OSError as error:
                if not failing:
                    say(f"the copy of {self._name} in {self._store.uri} is not fresh: {error}; training goes on")
                failing = True
            pause = max(self._every_s, (time.monotonic() - began) / MOST_OF_THE_TIME)
