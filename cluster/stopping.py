"""Ask a run to end early: it ends at the next step boundary, on all ranks alike, after a committed checkpoint.

    a signal to a worker's process · a notice that a launcher watches for · `stop.json` in the run's folder

Each rank only remembers what it heard; the loop sums over the ranks whether any did, with what it sums in each step anyway.
A launcher whose workers hear no signals hands its own on: `wait_forwarding` writes `stop.json` until the run has ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import TypeVar

from shards.storage import StorageError, Store

T = TypeVar("T")

STOP_FILE = "stop.json"

STOPPED_STATUS = 75
"""Of a command that was asked to end and did, EX_TEMPFAIL of sysexits.h: the same command goes on from there."""

INTERRUPTED_STATUS = 130
"""Of a command that was interrupted twice, and ended at once."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

POLL_S = 2.0
"""Between two looks at `stop.json`."""

SAME_INTERRUPT_S = 1.0
"""A terminal and a launcher may both hand on one Ctrl-C: those that come closer together count as one."""

Notice = Callable[[], str | None]
"""Why the run should end, None while it should not."""

_heard: list[str] = []
"""By this process, which signals are sent to; the first is the reason that is given."""
_notices: list[Notice] = []


def ask(reason: str) -> None:
    """Ask the run of this process to end."""
    _heard.append(reason)


def asked() -> str | None:
    """Why the run of this process should end, None while nobody asked."""
    return next(iter(_heard), None) or next((reason for notice in _notices if (reason := notice())), None)


def request_stop(run: Store, reason: str) -> None:
    """Ask the run of a folder to end, wherever it runs: its rank 0 looks for this file."""
    body = {"reason": reason, "asked": datetime.now(UTC).isoformat()}
    run.put(STOP_FILE, json.dumps(body).encode())


def wait_forwarding(work: Future[T], run: Store) -> T:
    """What `work` returns; what this process is asked meanwhile is asked of the run's workers, again and again.

    Once might be in vain: an attempt that begins later takes an older request for one that was meant for another.
    """
    while not wait([work], POLL_S).done:
        if reason := asked():
            try:
                request_stop(run, reason)
            except StorageError as error:
                print(f"ecgchat: {reason} is not handed on to the workers yet: {error}", file=sys.stderr, flush=True)
    return work.result()


@contextmanager
def noticing(notice: Notice) -> Iterator[None]:
    """Meanwhile a notice can end the run of this process too."""
    _notices.append(notice)
    try:
        yield
    finally:
        _notices.remove(notice)


@contextmanager
def listening() -> Iterator[None]:
    """Meanwhile SIGTERM, SIGINT and SIGUSR1 ask the run of this process to end; a second SIGINT ends the process at once.

    Only a main thread hears signals: in any other, and within another `listening`, nothing changes.
    """
    heard_already = signal.getsignal(signal.SIGTERM) is _remember
    if heard_already or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _remember) for number in SIGNALS}
    # Python writes each signal's number there at once, even while the main thread is in a collective and runs no handler.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former_pipe = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_when_interrupted_again, args=(reading,), name="interrupts", daemon=True).start()
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
        signal.set_wakeup_fd(former_pipe)
        os.close(writing)
        _heard.clear()


def _remember(number: int, frame: FrameType | None) -> None:
    """It may come in the middle of a print, which must not be entered twice: nothing is printed here."""
    ask(signal.Signals(number).name)


def _end_when_interrupted_again(numbers: int) -> None:
    """Read signals' numbers until the other end of the pipe is closed."""
    first: float | None = None
    while number := os.read(numbers, 1):
        if number[0] != signal.SIGINT:
            continue
        now = time.monotonic()
        if first is not None and now - first > SAME_INTERRUPT_S:
            os.write(2, b"ecgchat: interrupted again; ended at once\n")
            os._exit(INTERRUPTED_STATUS)
        first = first or now
    os.close(numbers)


class StopFile:
    """Rank 0's look at `stop.json` of its run, in a thread: what lay there before is not meant for this attempt.

    It is compared with what was found at the start, not by its time: machines' clocks differ.
    """

    def __init__(self, run: Store) -> None:
        self._run = run
        self._before = self._read()
        self._ended = threading.Event()
        self._reason: str | None = None
        # A store that does not answer must not keep the process: nobody waits for this thread.
        threading.Thread(target=self._watch, name="stop-file", daemon=True).start()

    def reason(self) -> str | None:
        """Why the run should end, None while nobody asked."""
        return self._reason

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _watch(self) -> None:
        while self._reason is None and not self._ended.wait(POLL_S):
            found = self._read()
            if found is not None and found != self._before:
                self._reason = _reason_of(found)

    def _read(self) -> bytes | None:
        try:
            return self._run.get(STOP_FILE) if self._run.exists(STOP_FILE) else None
        except StorageError:  # asked again soon
            return None


def _reason_of(body: bytes) -> str:
    """Whatever somebody wrote into the file asks for an end."""
    try:
        return str(json.loads(body)["reason"]) or STOP_FILE
    except (ValueError, KeyError, TypeError):
        return STOP_FILE
