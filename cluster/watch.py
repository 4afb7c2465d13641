"""A run that stands still is found, the rank that the others wait for is named with its stack, and all end to be started again.

Each rank has a thread that sees whether its own rank goes on (`cluster.progress`), and next to nothing is sent while it does. A
rank that stands still leaves a report in the run's folder, where the ranks meet even if rank 0 does not answer, which keeps the
process group's own store:

    RUN/watch/20261120T101500-a1b2c3/rank-00003.json    where rank 3 stands, since when, and its stack

All ranks enter the same phases in the same order. So the one that is behind is the one that the others wait for; and a rank
that leaves no report when it is asked for one is stopped, or its machine is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch.distributed as dist

from cluster import failure
from cluster.console import say
from cluster.errors import RunError, at_least
from cluster.events import Events
from cluster.markers import rank_name
from cluster.progress import HOST, here, rank_on_host
from cluster.silence import Report, own_line, silent_ranks, verdict, waits
from cluster.world import World
from shards.storage import Store

FOLDER = "watch"
HUNG_STATUS = 70
"""Of a process that the watch ends (EX_SOFTWARE)."""
FIRST_TIME = 4
"""A phase that this attempt has not finished yet may compile, or warm caches: it has so many times as long."""
COLLECTIVES_TIMEOUT = timedelta(hours=24)
"""After which torch's own collectives give up while a watch is kept: later than the watch, which knows more."""
LISTEN = 0.25
"""Times `hang_s`: how often a rank that goes on looks whether another misses its report."""
LAST_WORDS_S = 20
"""For what a process that ends by itself still writes."""


@dataclass(frozen=True)
class WatchConfig:
    """When a run is taken for hung, and what is said of its pace."""

    hang_s: float = 1800
    """Seconds without progress (each micro-batch is some) after which the rank that the others wait for is named and all
    processes end, to be started again; 0 never. A phase that an attempt does for the first time has four times as long, a
    checkpoint train.checkpoint.commit_timeout_s more."""
    slow_factor: float = 1.5
    """A rank is named whose own time of a step is so many times the median rank's."""
    starved_share: float = 0.2
    """Said once: the ranks wait for data for more than this share of the time."""
    window: int = 50
    """Steps over which pace is judged."""

    def __post_init__(self) -> None:
        at_least(0, train__watch__hang_s=self.hang_s, train__watch__starved_share=self.starved_share)
        at_least(1, train__watch__slow_factor=self.slow_factor, train__watch__window=self.window)
        most = COLLECTIVES_TIMEOUT.total_seconds() / FIRST_TIME
        if self.hang_s > most:
            raise RunError(f"train.watch.hang_s: expected at most {most:g}, found {self.hang_s:g}; set 0 for never")


class Watch:
    """The watch over this rank, while a `with` lasts; made by the thread that trains.

    Args:
        config: when to call.
        run: the run's folder.
        world: this attempt's ranks.
        events: where it is said.
        local: scratch folder, removed where the process is ended.
        commit_timeout_s: how long the ranks wait for one another's uploads.
    """

    def __init__(
        self, config: WatchConfig, run: Store, world: World, events: Events, local: Path, commit_timeout_s: float
    ) -> None:
        self._hang_s, self._commit_s = config.hang_s, commit_timeout_s
        self._store = Store(run.uri, failure.BRIEF)
        self._world, self._events, self._local = world, events, local
        self._poll_s = max(0.2, min(5.0, config.hang_s / 20))
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._ended = threading.Event()
        self._trained_by = threading.get_ident()
        self._seen, self._still_s = -1, 0.0
        self._reported: Report | None = None
        self._question = f"{FOLDER}/{world.attempt}/question.json"
        """Left by a rank that misses another's report."""
        self._asked_s: float | None = None
        """How long this rank stood still when it asked."""
        self._to_listen_s = 0.0
        self._left: set[str] = set()
        """What this rank wrote for the others, taken away at the end."""
        self._finished: set[str] = set()
        """Phases that this attempt has been through."""

    def __enter__(self) -> Watch:
        here.on_enter = lambda before, after: self._finished.add(before)
        if self._hang_s:
            for group in list(dist.distributed_c10d._world.pg_map):
                dist.distributed_c10d._set_pg_timeout(COLLECTIVES_TIMEOUT, group)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        here.on_enter = lambda before, after: None
        if self._thread.is_alive():
            self._thread.join(LAST_WORDS_S)
        for name in self._left:
            with suppress(OSError):
                self._store.delete(name)

    def _run(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(self._poll_s):
            now = time.monotonic()
            # A process that was stopped as a whole, as by 'scontrol suspend', does not count the time that it was stopped.
            self._look(min(now - before, 2 * self._poll_s))
            before = now

    def _look(self, passed_s: float) -> None:
        """Once in a while: does this rank go on?"""
        self._to_listen_s -= passed_s
        if here.count != self._seen:
            self._seen, self._still_s, self._asked_s = here.count, 0.0, None
            if self._reported is not None:
                self._report(over=False)
                self._reported = None
        self._still_s += passed_s
        if self._still_s >= self._hang_s / 2:
            over = self._still_s >= self._limit_s
            if self._reported is None or self._reported.over != over:
                self._report(over)
            self._follow_verdict(over)
            if over:
                self._judge()
        elif self._to_listen_s < 0:
            # Others may wait for a rank that goes on: it answers when they ask.
            self._to_listen_s = self._hang_s * LISTEN
            with suppress(OSError):
                if self._store.exists(self._question):
                    self._report(over=False)

    @property
    def _limit_s(self) -> float:
        """How long the present phase may last."""
        limit_s = self._hang_s * (1 if here.phase in self._finished else FIRST_TIME)
        return limit_s + (self._commit_s if here.phase == "checkpoint" else 0)

    def _name(self, rank: int) -> str:
        return f"{FOLDER}/{self._world.attempt}/{rank_name(rank)}.json"

    def _report(self, over: bool) -> None:
        frame = sys._current_frames().get(self._trained_by)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        where = (here.step, here.phase, here.count, self._still_s, over, waits(frame), own_line(frame), stack)
        self._reported = Report(self._world.rank, HOST, *where)
        self._leave(self._name(self._world.rank), json.dumps(asdict(self._reported)).encode())

    def _leave(self, name: str, body: bytes) -> bool:
        """Write something for the others; whether the run's folder could be written to."""
        self._left.add(name)
        with suppress(OSError):
            self._store.put(name, body)
            return True
        return False

    def _reports(self) -> dict[int, Report]:
        """Of all ranks that have left one.

        Raises:
            StorageError: the run's folder cannot be read.
        """
        found = {}
        for name in self._store.list(f"{FOLDER}/{self._world.attempt}"):
            if name != self._question:
                with suppress(ValueError, TypeError):
                    report = Report(**json.loads(self._store.get(name)))
                    found[report.rank] = report
        return found

    def _judge(self) -> None:
        """Name the rank that the others wait for, and end; or leave it to the lowest rank that can."""
        longest_s = 2 * (FIRST_TIME * self._hang_s + self._commit_s)
        try:
            reports = self._reports()
        except OSError:
            reports = {}
        # Without the run's folder this rank knows of itself alone, and is in no hurry.
        found = reports or ({self._world.rank: self._reported} if self._reported and self._still_s > longest_s else {})
        silent = silent_ranks(found, self._world.size) if reports else list(found)
        if not found or here.count != self._seen or not self._answered(found) or self._goes_on(found, silent, longest_s):
            return
        spokesman = min(rank for rank, report in found.items() if report.over)
        if self._world.rank == spokesman or self._still_s > self._limit_s + self._hang_s + LAST_WORDS_S:
            self._say(found, silent)
            self._end()

    def _answered(self, reports: Mapping[int, Report]) -> bool:
        """Whether every rank has left a report, or had the time to."""
        if len(reports) == self._world.size:
            return True
        if self._asked_s is None:
            if self._leave(self._question, b"{}"):
                self._asked_s = self._still_s
            return False
        return self._still_s - self._asked_s > self._hang_s * LISTEN + min(LAST_WORDS_S, self._hang_s / 2)

    def _goes_on(self, reports: Mapping[int, Report], silent: list[int], longest_s: float) -> bool:
        """Whether the rank that is behind still has time: its phase may last longer than the others'."""
        return self._still_s < longest_s and any(rank in reports and not reports[rank].over for rank in silent)

    def _say(self, reports: Mapping[int, Report], silent: list[int]) -> None:
        """The sentence to the log, the run's folder and its record, and the stacks beside it."""
        sentence = verdict(reports, silent, self._world.size, self._still_s)
        named = [rank for rank in silent or sorted(reports) if rank in reports]
        traces = [failure.trace_name(self._world.attempt, rank) for rank in named]
        first = reports.get(silent[0]) if silent else None
        host = first.host if first else (here.hosts[silent[0]] if silent and silent[0] < len(here.hosts) else "")
        found = failure.Failure(
            self._world.attempt,
            silent[0] if silent else None,
            host,
            first.step if first else here.step,
            f"{sentence}; ended, to be started again from the newest checkpoint (train.watch.hang_s {self._hang_s:g})",
            "silent_rank",
            self._store.uri_of(traces[0]) if traces else "",
            datetime.now(UTC).isoformat(timespec="seconds"),
        )

        def write() -> None:
            for rank, name in zip(named, traces, strict=True):
                self._store.put(name, f"{rank_on_host(rank)}, {reports[rank].phase}\n\n{reports[rank].stack}".encode())
            failure.write(self._store, found)
            self._events.upload()
            self._store.delete_folder(f"{FOLDER}/{self._world.attempt}")

        if self._world.main:
            self._events.say("silent_rank", found.told, found.step)
        else:
            say(found.told)
        failure.within(LAST_WORDS_S, write, None)

    def _follow_verdict(self, over: bool) -> None:
        """End with the others once one of them has named the silent rank, or has failed and is waited for in vain."""
        found = failure.read(self._store)
        if found is not None and found.attempt == self._world.attempt and (over or found.cause == "silent_rank"):
            self._end()

    def _end(self) -> None:
        """End this process: a thread that waits for others cannot be ended otherwise."""
        shutil.rmtree(self._local, ignore_errors=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(HUNG_STATUS)
