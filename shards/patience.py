"""How long a request to an object store is tried, and which failures may pass.

This is the only authority: the retries of the stores' own clients are switched off (`shards.clients`), so that a message
says how often a request was really made and a deadline is kept.
"""

from __future__ import annotations

import itertools
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import aiohttp
import botocore.exceptions as boto

T = TypeVar("T")

SILENT_WAIT_S = 2.0
"""Waits from this length on are logged: whoever looks on sees why nothing happens."""

NEVER = threading.Event()
"""For requests that nobody calls off."""


class StorageError(OSError):
    """An object store that cannot do what was asked: one sentence with the URI, the cause and what to do."""


class MissingObject(StorageError):  # noqa: N818  (what is so, rather than a fault)
    """The store answers, and the object or its bucket is not there."""


class ShortReplyError(ConnectionError):
    """A reply ended before all bytes came that the object has."""


class GaveUpError(Exception):
    """The deadline came first; `__cause__` is the last failure."""

    def __init__(self, attempts: int, seconds: float) -> None:
        super().__init__(attempts, seconds)
        self.attempts = attempts
        self.seconds = seconds


@dataclass(frozen=True)
class Patience:
    """How long one request is tried. Local files are never waited for."""

    deadline_s: float = 300.0
    """All attempts together: none begins later. A large transfer has more: see `least_rate`."""
    attempt_s: float = 60.0
    """One attempt: what has not ended by then is cancelled and made anew. A large transfer has more: see `least_rate`."""
    least_rate: float = 1e6
    """Bytes/s. A transfer of n bytes has n / least_rate seconds more, in each attempt and in all together."""
    first_wait_s: float = 0.2
    """Longest wait before the second attempt; it doubles from attempt to attempt, and half of each is drawn by lot."""
    longest_wait_s: float = 20.0
    """What it doubles up to."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise StorageError(f"data.loader.patience.{field.name}: expected a number above 0, found {value}")
        if self.attempt_s > self.deadline_s:
            raise StorageError(
                f"data.loader.patience.attempt_s: expected at most deadline_s ({self.deadline_s:g}), found {self.attempt_s:g}"
            )

    def moving(self, size: int) -> float:
        """Seconds more that a request may take which moves `size` bytes."""
        return size / self.least_rate

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures, by lot: clients that failed together do not come back together."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(failures - 1, 60))
        return longest * random.uniform(0.5, 1.0)


def insist(
    attempt: Callable[[float], T], patience: Patience, what: str, extra_s: float = 0.0, ended: threading.Event = NEVER
) -> T:
    """Make a request until it succeeds, fails for good, the deadline comes, or nobody wants it any more.

    Args:
        attempt: makes the request once within so many seconds; must do no harm when made twice.
        patience: how long.
        what: names the request in the log.
        extra_s: time that it has beyond `attempt_s` and `deadline_s`, for what it moves.
        ended: once it is set, no wait goes on and no other attempt begins; the one under way is waited for.

    Raises:
        GaveUpError: every attempt up to the deadline or to `ended` failed by what may pass.
    """
    begun, deadline_s = time.monotonic(), patience.deadline_s + extra_s
    for number in itertools.count(1):
        left_s = deadline_s - (time.monotonic() - begun)
        try:
            return attempt(min(patience.attempt_s + extra_s, left_s))
        except Exception as error:  # sorted by `may_pass`; what will not pass is raised as it is
            if not may_pass(error):
                raise
            wait, passed = patience.wait(number), time.monotonic() - begun
            if passed + wait >= deadline_s:
                raise GaveUpError(number, passed) from error
            if wait >= SILENT_WAIT_S:
                logging.getLogger(__name__).warning(
                    "%s: attempt %d failed (%s); the next in %.0f s", what, number, first_line(error), wait
                )
            if ended.wait(wait):
                raise GaveUpError(number, passed) from error
    raise AssertionError("unreachable: the count has no end")


PASSING_FAILURES = (
    TimeoutError,
    ConnectionError,
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    boto.FlexibleChecksumError,
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
)
PASSING_STATUS = {408, 429, 500, 502, 503, 504}
PASSING_CODES = {
    *("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "Throttling", "RequestLimitExceeded"),
    *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"),  # a body that was damaged on its way to the store
}
REFUSED_CODES = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "RequestExpired", "TokenRefreshRequired"}
"""Keys that are no longer good, which some stores say with status 400 and not 403."""


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: the server's or the network's fault, and not what was asked."""
    if isinstance(error, FileNotFoundError) or refused(error):
        return False
    for cause in _causes(error):
        status, code = _reply(cause)
        if status in PASSING_STATUS or code in PASSING_CODES:
            return True
        if isinstance(cause, PASSING_FAILURES):
            return "CERTIFICATE_VERIFY_FAILED" not in str(cause)
    return False


def refused(error: BaseException) -> bool:
    """Whether the store did not accept who asks: no keys, expired or unknown ones, or too few rights."""
    no_keys = (PermissionError, boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
    for cause in _causes(error):
        status, code = _reply(cause)
        if isinstance(cause, no_keys) or status in (401, 403) or code in REFUSED_CODES:
            return True
    return False


def first_line(error: BaseException) -> str:
    """What an error says, in a line, without what a URL may hold of names and passwords."""
    lines = re.sub(r"//[^/@\s]*@", "//", str(error)).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised from: clients translate errors and keep the original as the cause."""
    while error is not None:
        yield error
        error = error.__cause__


def _reply(error: BaseException) -> tuple[int | None, str | None]:
    """Status and code of the store's reply, as S3 (botocore), Google's (gcsfs) and Azure's clients keep them."""
    if isinstance(error, boto.ClientError):
        reply: dict[str, Any] = dict(error.response)
        return reply.get("ResponseMetadata", {}).get("HTTPStatusCode"), reply.get("Error", {}).get("Code")
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value, None
    return None, None
