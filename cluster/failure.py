"""The first cause of a failed attempt reaches the user once, and stays in the run's folder.

    RUN/failure.json                                      the first cause of the last attempt that failed, in one sentence
    RUN/failures/20261120T101500-a1b2c3/rank-00003.txt    the trace of each rank that failed

A rank that fails pulls the others down: their collectives end with 'connection closed by peer'. Those are consequences, and
stay silent.
"""

from __future__ import annotations

import errno
import json
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from cluster.errors import AgreedError, FailedRankError, RunError, SilentError
from cluster.keys import without_secrets
from cluster.markers import rank_name
from cluster.memory_advice import killed_for_memory, memory_sentence, out_of_memory
from cluster.progress import HOST, here, rank_on_host
from cluster.world import attempt_id, default_store
from shards.storage import Patience, Store

FILE = "failure.json"
FOLDER = "failures"

BRIEF = Patience(deadline_s=20, attempt_s=10)
"""A process that fails does not wait long for the store."""
GRACE_S = 5.0
"""How long a rank whose collective broke waits for the rank that broke it to say why."""
POLL_S = 0.25

BROKEN_COLLECTIVE = re.compile(r"gloo|NCCL|c10d|TCPStore|[Cc]onnection (closed|reset|was)|[Bb]roken pipe")

FULL = (errno.ENOSPC, errno.EDQUOT)
"""A disk of this machine has no room, or this user's share of it has none."""

Cause = Literal["error", "out_of_memory", "silent_rank", "lost_rank"]
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """The first cause of a failed attempt."""

    attempt: str
    rank: int | None
    """That failed first; None where that could not be found out."""
    host: str
    step: int | None
    said: str
    cause: Cause = "error"
    trace: str = ""
    """URI of its trace, empty where there is none."""
    at: str = ""
    """ISO time."""
    launched: str = ""
    """Names what started this attempt and its restarts."""
    times: int = 1
    """Attempts of one launch that ended so, at this step, one after the other."""
    followed_by: str = ""
    """The attempt that went on from there; empty while there is none."""

    @property
    def told(self) -> str:
        """The sentence, and where to read on."""
        return f"{self.said}; its trace: {self.trace}" if self.trace else self.said

    @property
    def final(self) -> bool:
        """Whether another attempt would only end so again."""
        return self.cause == "out_of_memory" and self.times > 1


def read(run: Store) -> Failure | None:
    """The failure that the run's folder holds; None where there is none that can be read."""
    with suppress(OSError, ValueError, TypeError):
        return Failure(**json.loads(run.get(FILE)))
    return None


def write(run: Store, failure: Failure) -> Failure:
    """Put a failure into the run's folder and return it with how often the same came before."""
    before = read(run)
    same = (failure.cause, failure.step, failure.launched)
    another = before is not None and (before.followed_by or before.attempt != failure.attempt)
    if before and another and (before.cause, before.step, before.launched) == same:
        failure = Failure(**{**asdict(failure), "times": before.times + 1})
    with suppress(OSError):
        run.put(FILE, json.dumps(asdict(failure), indent=1).encode())
    return failure


@contextmanager
def first_cause(settings: dict[str, Any], launched: str = "") -> Iterator[None]:
    """Whatever goes wrong inside is written into the run's folder if it is the first cause, and else kept silent.

    Args:
        settings: of the job, with the run's folder as `run.folder`.
        launched: names what started this attempt, the same for its restarts.

    Raises:
        AgreedError: a restart would meet the same.
        FailedRankError: the first cause, if nobody foresaw it; its trace is in the run's folder.
        RunError: the first cause, if it is meant for the user as it is.
        SilentError: another rank's failure is the first cause, or it says what all have to say.
    """
    here.begin()
    reporter = _Reporter(Store(settings["run"]["folder"], BRIEF), settings, launched)
    reporter.follow()
    try:
        yield
    except Exception as error:
        reporter.report(error)


class _Reporter:
    """What this rank has to know when it fails."""

    def __init__(self, run: Store, settings: dict[str, Any], launched: str) -> None:
        self.run, self.settings, self.launched = run, settings, launched
        self.rank, self.size, self.attempt = dist.get_rank(), dist.get_world_size(), attempt_id()
        self.kills = killed_for_memory()

    def follow(self) -> None:
        """Begin after the failure before, unless it was final in this launch."""
        before = read(self.run)
        if before is None:
            return
        if before.final and before.launched and before.launched == self.launched:
            raise AgreedError(before.said) if self.rank == 0 else SilentError(before.said, final=True)
        if self.rank == 0 and before.attempt != self.attempt and not before.followed_by:
            here.ended = before.said
            with suppress(OSError):
                self.run.put(FILE, json.dumps({**asdict(before), "followed_by": self.attempt}, indent=1).encode())

    def report(self, error: Exception) -> None:
        """Raise what this rank has to say of it."""
        if isinstance(error, AgreedError):
            if self.rank > 0:
                raise SilentError(str(error), final=True) from error
            if here.step is not None:
                # An attempt that was refused before its first step leaves the run as it is.
                self._write(str(error), "error")
            raise error
        trace = keep_trace(self.run, self.attempt, self.rank, error)
        if is_consequence(error):
            self._await_cause(error)
            self._say_lost(error)
        if not self._first():
            self._await_cause(error)
        memory = out_of_memory(error)
        said = memory_sentence(self._who, self.settings, self.size) if memory else self._sentence(error)
        failure = self._write(said, "out_of_memory" if memory else "error", trace)
        if failure.final:
            raise AgreedError(failure.said) from error
        if isinstance(error, RunError):
            raise error
        raise FailedRankError(failure.told) from error

    @property
    def _who(self) -> str:
        """`rank 3 on node-7, step 12, forward`."""
        return f"rank {self.rank} on {HOST}, {here.place}"

    def _sentence(self, error: Exception) -> str:
        return str(error) if isinstance(error, RunError) else f"{self._who}: {in_words(error)}"

    def _write(self, said: str, cause: Cause, trace: str = "", rank: int | None = None, host: str = HOST) -> Failure:
        own = self.rank if rank is None else rank
        at = datetime.now(UTC).isoformat(timespec="seconds")
        said = without_secrets(said)
        return write(self.run, Failure(self.attempt, own, host, here.step, said, cause, trace, at, self.launched))

    def _first(self) -> bool:
        """Whether no other rank failed before, as far as can be known."""
        claimed = within(GRACE_S, lambda: int(default_store().add("ecgchat/failed", 1)), 0)
        # Where rank 0, which keeps the count, is gone, it is 0.
        return claimed == 1 or (claimed == 0 and self._cause() is None)

    def _cause(self) -> Failure | None:
        found = read(self.run)
        return found if found is not None and found.attempt == self.attempt else None

    def _await_cause(self, error: Exception) -> None:
        """End silently as soon as some rank has said why; return if none does."""
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            if cause := self._cause():
                raise SilentError(cause.said, final=cause.final) from error
            time.sleep(POLL_S)

    def _ranks_with_traces(self) -> set[int]:
        """The ranks that were there to fail, this one among them."""
        with suppress(OSError):
            there = set(self.run.list(f"{FOLDER}/{self.attempt}"))
            return {rank for rank in range(self.size) if trace_name(self.attempt, rank) in there} | {self.rank}
        return {self.rank}

    def _say_lost(self, error: Exception) -> None:
        """Some rank ended without a word."""
        spoke = self._ranks_with_traces()
        if self.rank > min(spoke):
            self._await_cause(error)
            raise SilentError("") from error
        lost = [rank for rank in range(self.size) if rank not in spoke]
        who = ", ".join(rank_on_host(rank) for rank in lost[:4]) + (f" and {len(lost) - 4} more" if len(lost) > 4 else "")
        if killed_for_memory() > self.kills:
            said = memory_sentence(f"{who or 'a rank'}, {here.place}", self.settings, self.size, killed=True)
            failure = self._write(said, "out_of_memory", rank=lost[0] if lost else None)
        else:
            said = (
                f"{who or 'a rank'} ended without a word, {here.place}: its process was killed, or its machine or network is "
                "gone; look at that machine's log, and for want of memory there"
            )
            failure = self._write(said, "lost_rank", rank=lost[0] if lost else None)
        if failure.final:
            raise AgreedError(failure.said) from error
        raise FailedRankError(failure.told) from error


def is_consequence(error: BaseException) -> bool:
    """Whether an error is what a collective ends with whose other end is gone."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and bool(BROKEN_COLLECTIVE.search(str(error))))


def in_words(error: BaseException) -> str:
    """An error in one sentence; one that nobody foresaw begins with its name."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{text}; make room, or set TMPDIR (now {tempfile.gettempdir()}) to a larger disk, and start the run again"
    return text if is_foreseen(error) else f"{type(error).__name__}: {text}"


def is_foreseen(error: BaseException) -> bool:
    """Whether an error's own words are meant to be read; the data's errors are kinds of ValueError, the store's of OSError."""
    return isinstance(error, RunError | OSError | ValueError) and type(error) is not ValueError


def keep_trace(run: Store, attempt: str, rank: int, error: BaseException) -> str:
    """Where the trace of an error is kept: a URI in the run's folder, or empty where it had to go to standard error."""
    text = without_secrets("".join(traceback.format_exception(error)))
    name = trace_name(attempt, rank)
    try:
        run.put(name, f"rank {rank} on {HOST}, {here.place}\n\n{text}".encode())
    except OSError:
        print(text, file=sys.stderr)
        return ""
    return run.uri_of(name)


def trace_name(attempt: str, rank: int) -> str:
    """Where a rank's trace lies in the run's folder."""
    return f"{FOLDER}/{attempt}/{rank_name(rank)}.txt"


def within(limit_s: float, call: Callable[[], T], otherwise: T) -> T:
    """What a call returns, or `otherwise` if it fails or takes too long: it may ask a process that answers nobody."""
    result = [otherwise]

    def run() -> None:
        with suppress(Exception):
            result[0] = call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    return result[0]
