"""Run cases in processes that may crash, hang or run out of memory: it is noted which case did it, and the others go on."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import h5py

from tests.shards.fuzz.cases import Case, all_cases, set_up
from tests.shards.fuzz.judge import judge
from tests.shards.fuzz.recordings import RECORDINGS
from tests.shards.fuzz.seeds import CORPORA

SECONDS = 20
"""For one case; the slowest take about one."""
MEMORY = 2**30
"""Bytes of address space that a case may take beyond what the process has before it."""


@dataclass
class Result:
    """What came of one case."""

    number: int
    records: int = 0
    rejected: int = 0
    problems: list[str] = field(default_factory=list)
    fault: str | None = None
    """`crash`, `hang`, `memory` or `wrong`; None where all is well."""
    seconds: float = 0.0
    peak_bytes: int = 0
    """Memory that was resident at most, beyond what was before."""


def run_cases(
    numbers: Iterable[int],
    undamaged: Path,
    room: Path,
    processes: int,
    cases_of: Callable[[Path], dict[int, Case]] = all_cases,
    seconds: float = SECONDS,
) -> Iterator[Result]:
    """Run cases by their numbers, in any order.

    Args:
        numbers: of the cases.
        undamaged: what `write_corpora` wrote.
        room: a folder, where each case has one of its own while it runs.
        processes: that run at a time.
        cases_of: gives a process the cases for that folder.
        seconds: that a case may take.
    """
    todo = deque(numbers)
    workers = [_Worker(undamaged, room, cases_of, seconds) for _ in range(min(processes, len(todo)))]
    busy: dict[Any, _Worker] = {}
    try:
        for worker in workers:
            worker.give(todo.popleft())
            busy[worker.pipe] = worker
        while busy:
            for pipe in wait(list(busy)):
                worker = busy.pop(pipe)
                yield worker.take()
                if todo:
                    worker.give(todo.popleft())
                    busy[worker.pipe] = worker
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that runs one case after another, and is replaced when a case ends it."""

    def __init__(self, *given: Any) -> None:
        self._given = given
        self._start()

    def _start(self) -> None:
        context: Any = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, *self._given), daemon=True)
        self._process.start()
        other.close()

    def give(self, number: int) -> None:
        self._number, self._given_at = number, time.perf_counter()
        self.pipe.send(number)

    def take(self) -> Result:
        """What came of the case that was given; a process that died is replaced."""
        try:
            result: Result = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            result = _death(self._number, self._process.exitcode)
            result.seconds = time.perf_counter() - self._given_at
            self.pipe.close()
            self._start()
        return result

    def end(self) -> None:
        self._process.terminate()
        self._process.join()
        self.pipe.close()


def _death(number: int, status: int) -> Result:
    if -status == signal.SIGALRM:
        return Result(number, fault="hang", problems=["took too long"])
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return Result(number, fault="memory" if -status == signal.SIGKILL else "crash", problems=[f"the process ended with {name}"])


def _serve(pipe: Connection, undamaged: Path, room: Path, cases_of: Callable[[Path], dict[int, Case]], seconds: float) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.dont_write_bytecode = True
    cases = cases_of(undamaged)
    _warm_up(undamaged)
    _limit_memory()
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)
        result = run_case(cases[number], undamaged, room)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(result)


def run_case(case: Case, undamaged: Path, room: Path) -> Result:
    """Run one case in this process."""
    place = room / f"{case.number:06d}"
    shutil.rmtree(place, ignore_errors=True)
    result, started, before = Result(case.number), time.perf_counter(), 0
    try:
        folder = set_up(case, undamaged, place)
        before = _reset_peak()
        outcome = judge(case.corpus.source, folder)
        result.records, result.rejected, result.problems = outcome.records, outcome.rejected, outcome.problems
        if outcome.problems:
            result.fault = "memory" if any("is about memory" in problem for problem in outcome.problems) else "wrong"
    except Exception as error:
        result.fault = "memory" if isinstance(error, MemoryError) else "wrong"
        result.problems.append("".join(traceback.format_exception(error))[-4000:])
    result.seconds, result.peak_bytes = time.perf_counter() - started, max(0, _peak() - before)
    _close_files()
    shutil.rmtree(place, ignore_errors=True)
    return result


def _close_files() -> None:
    """HDF5 files stay open for the next record; a damaged one is closed in its own case, so that no other is blamed."""
    for identifier in h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE):
        with suppress(Exception):
            h5py.File(identifier).close()
    gc.collect()


def _warm_up(undamaged: Path) -> None:
    """Read every undamaged corpus: what libraries load and keep is no case's memory."""
    for corpus in (*CORPORA, *RECORDINGS):
        if (undamaged / corpus.name).is_dir():
            judge(corpus.source, undamaged / corpus.name)
    _close_files()


def _limit_memory() -> None:
    """An allocation that takes the process past its limit fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _reset_peak() -> int:
    """Forget the peak of resident memory so far; what is resident."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    """Bytes that were resident at most since `_reset_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
