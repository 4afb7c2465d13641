"""Who builds the shards: this process, or several beside it that may die without taking the build with them.

A decoder that meets a damaged file can end its process or never come back. Each worker therefore says in shared memory which
record it is reading, and is ended by a timer when it takes too long over one. When a worker dies of what it read, that
record is refused by name and a new worker builds the shard again.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from ctypes import c_int64
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from shards.dataset import DatasetError
from shards.plan import PlannedShard
from shards.shard_writer import BuiltShard

SECONDS_FOR_A_RECORD = 120
"""The slowest step, delineation, takes less than a second; a record that takes this long never comes."""

BLAMED = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGALRM}
"""Signals that a process brings on itself by what it reads; others come from outside and are no record's fault."""

MOST_DEATHS = 16
"""Records of one shard that may end a worker; more of them, and it is not the records."""


class BuildShard(Protocol):
    """Builds one shard; survives a pickle."""

    def __call__(self, planned: PlannedShard, refused: Mapping[str, str], on_record: Callable[[int], None]) -> BuiltShard:
        """As `ShardWriter`."""
        ...


Runner = Callable[[BuildShard, Iterable[PlannedShard]], Iterator[BuiltShard]]
"""Builds shards in any order and gives each as soon as it is in the store."""


def in_this_process(build_shard: BuildShard, shards: Iterable[PlannedShard]) -> Iterator[BuiltShard]:
    """One shard after the other, here."""
    return (build_shard(shard, {}, lambda position: None) for shard in shards)


def in_processes(count: int, seconds_for_a_record: float = SECONDS_FOR_A_RECORD) -> Runner:
    """A runner with `count` worker processes, each with one shard at a time and so many seconds for a record.

    Its iterator raises what a worker raised, and `DatasetError` where a worker was killed from outside.
    """

    def run(build_shard: BuildShard, shards: Iterable[PlannedShard]) -> Iterator[BuiltShard]:
        todo = deque(shards)
        workers = [_Worker(build_shard, seconds_for_a_record) for _ in range(min(count, len(todo)))]
        busy: dict[Any, _Worker] = {}

        def give_next(worker: _Worker) -> None:
            if todo:
                worker.give(todo.popleft())
                busy[worker.pipe] = worker

        try:
            for worker in workers:
                give_next(worker)
            while busy:
                for pipe in wait(list(busy)):
                    worker = busy.pop(pipe)
                    result = worker.take()
                    if result is None:
                        busy[worker.pipe] = worker
                    else:
                        give_next(worker)
                        yield result
        finally:
            for worker in workers:
                worker.end()

    return run


class _Worker:
    """A process that builds one shard after another, and is replaced when a record ends it."""

    def __init__(self, build_shard: BuildShard, seconds_for_a_record: float) -> None:
        self._build_shard, self._seconds = build_shard, seconds_for_a_record
        self._start()

    def give(self, shard: PlannedShard) -> None:
        self._shard, self._refused = shard, dict[str, str]()
        self.pipe.send((shard, self._refused))

    def take(self) -> BuiltShard | None:
        """The shard that was given; None where the process died over a record and another has begun again without it."""
        try:
            result: BuiltShard | BaseException = self.pipe.recv()
        except (EOFError, OSError):
            self._refuse_record()
            return None
        if isinstance(result, BaseException):
            raise result
        return result

    def end(self) -> None:
        self._process.terminate()
        self._process.join()
        self.pipe.close()

    def _start(self) -> None:
        # Object store clients run threads, which do not survive a fork.
        context: Any = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._position = context.RawValue(c_int64, -1)
        self._process = context.Process(
            target=_serve, args=(other, self._build_shard, self._position, self._seconds), daemon=True
        )
        self._process.start()
        other.close()

    def _refuse_record(self) -> None:
        self._process.join()
        status, position = self._process.exitcode, self._position.value
        reading = 0 <= position < len(self._shard.records)
        if not reading or -status not in BLAMED or len(self._refused) == MOST_DEATHS:
            name = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise DatasetError(
                f"{self._shard.name}: the process that built it ended with {name}; it may have lacked memory: start the same "
                "command again, which continues, with fewer --workers or --records-per-shard"
            )
        self._refused[self._shard.records[position].record_id] = (
            f"reading it took more than {self._seconds:g} s; fetch its file again"
            if -status == signal.SIGALRM
            else f"the decoder ended with {signal.Signals(-status).name} while it read the file; fetch it again"
        )
        self.pipe.close()
        self._start()
        self.pipe.send((self._shard, self._refused))


def _serve(pipe: Connection, build_shard: BuildShard, position: Any, seconds: float) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            shard, refused = pipe.recv()
        except EOFError:
            return

        def on_record(number: int, count: int = len(shard.records)) -> None:
            position.value = number
            signal.setitimer(signal.ITIMER_REAL, seconds if number < count else 0)

        try:
            pipe.send(build_shard(shard, refused, on_record))
        except Exception as error:  # the parent raises it
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(error)
