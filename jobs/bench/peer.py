"""A peer of a benchmark in a process of its own, and whether it reads what we read."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PEERS_SCRIPT = Path(__file__).with_name("loader_peers.py")
MAKE_PEERS = "bash jobs/bench/peers.sh .venv-peers, then --peers .venv-peers/bin/python"
"""What makes the environment that some peers need."""

Found = tuple[int, Sequence[float]]
"""Records and checksum, as `loader_peers.fingerprint` tells them."""


class DifferentRecordsError(RuntimeError):
    """A peer does not read what we read, so that its speed says nothing."""


class Peer:
    """A peer in a process of its own, which reads all records whenever it is asked.

    Args:
        work: which, as `loader_peers` calls it.
        python: interpreter of its environment.
        folder: what `make_data` has written.

    Raises:
        DifferentRecordsError: it ended, or does not deliver what was expected.
    """

    def __init__(self, work: str, python: Path, folder: Path) -> None:
        self.work, self._log = work, folder / f"{work}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-P", PEERS_SCRIPT, work, folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            found = self._reply()
        except BaseException:
            self.close()
            raise
        self.version, self.tried = str(found["version"]), list(found["tried"])
        self.records = int(self.tried[0]["records"])

    def read(self) -> None:
        """One pass over all records."""
        assert self._process.stdin is not None
        self._process.stdin.write("read\n")
        self._process.stdin.flush()
        if self._reply()["records"] != self.records:
            raise DifferentRecordsError(f"{self.work}: a later pass delivers other records than the first")

    def close(self) -> None:
        """End the process, which cleans up behind itself when its input ends."""
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = " ".join(self._log.read_text().splitlines()[-1:])
            raise DifferentRecordsError(f"{self.work}: ended with status {self._process.wait()} ({tail}); {MAKE_PEERS}")
        reply: dict[str, Any] = json.loads(line)
        return reply


def require_same(name: str, found: tuple[int, Sequence[float]], expected: tuple[int, Sequence[float]]) -> None:
    """Refuse a reader whose `fingerprint` is another: other records, not all of them, or other values.

    Raises:
        DifferentRecordsError: it is.
    """
    same = all(math.isclose(one, other, rel_tol=1e-6) for one, other in zip(found[1], expected[1], strict=True))
    if found[0] != expected[0] or not same:
        raise DifferentRecordsError(
            f"{name} reads {found[0]} records with checksum {found[1]}; expected {expected[0]} with {expected[1]}, as ours"
        )
