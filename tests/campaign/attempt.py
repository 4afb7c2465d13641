"""One attempt at a run: its ranks, as plain processes of one command each, and how they ended.

They are forked from a process that has imported what they need, and so begin at once; where something has to be there before
the interpreter, they are started as commands.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cluster.local.servers import free_ports
from jobs.errors import one_sentence
from tests.cluster.ranks import IMPORTED_LATE, Ended

HANGS_S = 150
"""An attempt that takes longer never ends."""
PREPARE = "ECGCHAT_TEST_PREPARE"
"""`module:function` that a rank calls before anything else."""
RANKS = 2
PROJECT = Path(__file__).parents[2]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["jobs.coca", "tests.campaign.job", *IMPORTED_LATE, __name__])


class _Command:
    """A rank that is a command of its own, with what a `multiprocessing.Process` offers."""

    def __init__(self, settings: Path, log: Path, variables: dict[str, str]) -> None:
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
            command = [sys.executable, "-m", "tests.campaign.job", "--config", str(settings)]
            self._process = subprocess.Popen(command, cwd=PROJECT, env={**os.environ, **variables}, stdout=out, stderr=err)
        self.pid = self._process.pid
        self.kill = self._process.kill

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def is_alive(self) -> bool:
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return


class Attempt:
    """The ranks of one attempt.

    Args:
        settings: of the job.
        folder: for what the ranks say; made.
        environment: variables of the ranks.
        commands: start commands instead of forking.
    """

    def __init__(self, settings: dict[str, Any], folder: Path, environment: dict[str, str], commands: bool = False) -> None:
        folder.mkdir(parents=True)
        file = folder / "settings.json"
        file.write_text(json.dumps(settings))
        [port] = free_ports(1)
        shared = {"WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **environment}
        self._logs = [folder / f"rank-{rank}" for rank in range(RANKS)]
        self._processes: list[Any] = []
        self.killed: set[int] = set()
        """Ranks that the campaign ended: what they say counts for nothing."""
        for rank, log in enumerate(self._logs):
            variables = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            if commands:
                self._processes.append(_Command(file, log, variables))
            else:
                self._processes.append(_context.Process(target=_rank, args=(file, log, variables), daemon=True))
                self._processes[-1].start()

    def pid(self, rank: int) -> int:
        """Of a rank's process."""
        return int(self._processes[rank].pid)

    def pids(self) -> list[int]:
        """Of all ranks' processes."""
        return [process.pid for process in self._processes]

    def signal(self, number: signal.Signals, *ranks: int) -> None:
        """Send a signal to some ranks, or to all; nothing happens to those that have ended."""
        for rank in ranks or range(RANKS):
            if self._processes[rank].is_alive():
                os.kill(self.pid(rank), number)
                if number in (signal.SIGKILL, signal.SIGSTOP):
                    self.killed.add(rank)

    def running(self) -> bool:
        """Whether every rank runs."""
        return all(process.is_alive() for process in self._processes)

    def wait(self) -> list[Ended]:
        """How each rank ended; one that still runs after a long time, or was stopped for good, is killed and has no status."""
        deadline = time.monotonic() + HANGS_S
        for rank in sorted(range(RANKS), key=lambda rank: rank in self.killed):
            process = self._processes[rank]
            process.join(1 if rank in self.killed else max(0.0, deadline - time.monotonic()))
        statuses = [process.exitcode for process in self._processes]
        for rank, process in enumerate(self._processes):
            if process.is_alive() and rank not in self.killed:
                os.kill(process.pid, signal.SIGABRT)  # it says what its threads are doing
                process.join(5)
        self.kill()
        return [Ended(status, said.out, said.err) for status, said in zip(statuses, self.said(), strict=True)]

    def said(self) -> list[Ended]:
        """Status and words of each rank up to now."""
        return [
            Ended(process.exitcode, _words(log.with_suffix(".out")), _words(log.with_suffix(".err")))
            for process, log in zip(self._processes, self._logs, strict=True)
        ]

    def kill(self) -> None:
        """SIGKILL to all that is left."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


def _words(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def _rank(settings: Path, log: Path, variables: dict[str, str]) -> None:
    """One rank, as a command of its own: with its environment, its output and its exit status."""
    os.environ.update(variables)
    tempfile.tempdir = None  # what the parent found out is not this environment's
    for stream, suffix in ((sys.stdout, ".out"), (sys.stderr, ".err")):
        with log.with_suffix(suffix).open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    faulthandler.enable()
    if PREPARE in os.environ:
        module, _, name = os.environ[PREPARE].partition(":")
        prepare: Callable[[], None] = getattr(import_module(module), name)
        prepare()
    from tests.campaign.job import main

    sys.exit(one_sentence(partial(main, ["--config", str(settings)])))
