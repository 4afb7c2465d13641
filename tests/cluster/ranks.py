"""Worker processes without a launcher between: each rank's own status and words are seen, and a kill takes them all at once.

They are forked from a process that has imported what they need, and so begin at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.launch import process
from cluster.launch.config import LaunchConfig
from cluster.local.servers import free_ports
from cluster.stopping import STOPPED_STATUS
from jobs.errors import one_sentence

TIMEOUT_S = 300
"""A rank that takes longer hangs."""

IMPORTED_LATE = ["deepspeed.module_inject.auto_ep_config", "deepspeed.runtime.zero.muon.muon_optimizer"]
"""What DeepSpeed imports where it makes an engine: most of the time that a rank needs to begin. Absent, it is only slower."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["jobs.coca", *IMPORTED_LATE, __name__])


@dataclass(frozen=True)
class Ended:
    """How one rank ended, and what it said."""

    status: int | None
    """None while it runs, -9 where it was killed."""
    out: str
    err: str


class Ranks:
    """The ranks of one attempt; what is left of them is killed at the end of a `with`.

    Args:
        count: of ranks.
        worker: `package.module:function`, as for `cluster.launch.process.run`.
        settings: of the job.
        folder: for what the ranks say.
        environment: variables of the processes.
    """

    def __init__(self, count: int, worker: str, settings: dict[str, Any], folder: Path, **environment: str) -> None:
        [port] = free_ports(1)
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
        self._logs = [folder / f"rank-{rank}" for rank in range(count)]
        self._processes = []
        for rank, log in enumerate(self._logs):
            variables = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self._processes.append(_context.Process(target=_rank, args=(worker, settings, log, variables), daemon=True))
            self._processes[-1].start()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def run_until(self, reached: Callable[[], bool]) -> None:
        """Let them run until something is so; it is an error if one ends, or hangs, before."""
        deadline = time.monotonic() + TIMEOUT_S
        while not reached():
            assert all(one.is_alive() for one in self._processes), self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def send(self, number: signal.Signals, rank: int) -> None:
        """A signal to one rank, once it hears it; one that cannot be heard, at once."""
        pid = self._processes[rank].pid
        self.run_until(lambda: number == signal.SIGSTOP or hears(pid, number))
        os.kill(pid, number)

    def send_all(self, number: signal.Signals) -> None:
        """A signal that every process obeys, to all."""
        for one in self._processes:
            os.kill(one.pid, number)

    def kill(self) -> None:
        """SIGKILL to all, at once."""
        for one in self._processes:
            one.kill()
        for one in self._processes:
            one.join()

    def wait(self, but: Sequence[int] = ()) -> list[Ended]:
        """How each rank ended by itself, or that it did not; some may be left out."""
        deadline = time.monotonic() + TIMEOUT_S
        for rank, one in enumerate(self._processes):
            if rank not in but:
                one.join(max(0.0, deadline - time.monotonic()))
        return self.said()

    def said(self) -> list[Ended]:
        """Status and words of each rank up to now."""
        return [
            Ended(one.exitcode, _text(log.with_suffix(".out")), _text(log.with_suffix(".err")))
            for one, log in zip(self._processes, self._logs, strict=True)
        ]


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _text(log: Path) -> str:
    """Nothing from a rank that has not begun yet."""
    return log.read_text() if log.exists() else ""


def _rank(worker: str, settings: dict[str, Any], log: Path, variables: dict[str, str]) -> None:
    """One rank, as a command of its own: with its environment, its output and its exit status."""
    os.environ.update(variables)
    for stream, suffix in ((sys.stdout, ".out"), (sys.stderr, ".err")):
        with log.with_suffix(suffix).open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())

    def command() -> int:
        outcome = process.run(worker, settings, LaunchConfig(threads=1))
        return STOPPED_STATUS if outcome.get("stopped") else 0

    sys.exit(one_sentence(command))
