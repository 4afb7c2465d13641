"""The object store: what a run does with it, done once with small objects, which are removed again."""

from __future__ import annotations

import email.utils
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cluster.doctor.findings import Check, Finding, fail, ok, size, warn
from shards.storage import Patience, StorageError, Store

PATIENCE = Patience(deadline_s=20, attempt_s=8, longest_wait_s=2)
"""Whoever looks wants to know soon."""
SMALL, LARGE = 4096, 16 * 2**20
TIMES = 5
SLOW_S, SLOW_RATE = 0.5, 20 * 2**20
"""A request, and bytes/s of one stream, from which on loaders and checkpoints wait for the store."""
SKEW_WARN_S, SKEW_FAIL_S = 5.0, 300.0
"""S3 refuses a request whose clock is 15 minutes off (RequestTimeTooSkewed)."""


def checks(uri: str) -> list[tuple[str, Check]]:
    """What there is to look at in the store of a URI."""
    found: list[tuple[str, Check]] = [("store", lambda: works(uri))]
    return [*found, ("clock", lambda: clock(uri))] if uri.startswith("s3://") else found


def works(uri: str) -> list[Finding]:
    """Write, read, read a range, list, delete; latency and throughput; on S3 a conditional read."""
    try:
        with _place(Store(uri, PATIENCE)) as place:
            findings = _requests(place)
    except StorageError as error:
        return [fail("store", str(error), "a run needs to write, read, list and delete below it")]
    return [*findings, *conditional(uri)] if uri.startswith("s3://") else findings


def _requests(place: Store) -> list[Finding]:
    body = secrets.token_bytes(LARGE)
    wrote = _seconds(lambda: place.put("large", body))
    read = _seconds(lambda: place.get("large"))
    if place.get("large") != body:
        return [fail("store", f"{place.uri_of('large')}: what was read is not what was written", "do not train on this store")]
    findings = [ok("store", f"{place.uri.rpartition('/')[0]}: writes and reads")]
    if place.get_range("large", LARGE // 2, SMALL) == body[LARGE // 2 : LARGE // 2 + SMALL]:
        findings.append(ok("store: ranged read", f"{SMALL} bytes from the middle of {size(LARGE)}"))
    else:
        findings.append(fail("store: ranged read", "the wrong bytes came", "shards are read by range: use another store"))
    place.put("small", body[:SMALL])
    latency = sorted(_seconds(lambda: place.get("small")) for _ in range(TIMES))[TIMES // 2]
    findings.append(_speed(latency, LARGE / read, LARGE / wrote))
    listed = place.list()
    for name in ("large", "small"):
        place.delete(name)
    if (listed, place.list()) == (["large", "small"], []):
        findings.append(ok("store: listing", "what was written is listed at once, what was deleted is not"))
    else:
        found = f"{listed} listed of two objects, {place.list()} after they were deleted"
        findings.append(fail("store: listing", found, "a resume lists checkpoints: use a store with up-to-date listings"))
    return findings


def _speed(latency_s: float, read: float, written: float) -> Finding:
    """Of one stream; rates in bytes/s."""
    found = f"{latency_s * 1e3:.1f} ms for {SMALL} bytes; one stream reads {size(read)}/s, writes {size(written)}/s"
    if latency_s > SLOW_S or read < SLOW_RATE:
        return warn("store: speed", found, "use a store near the machines; perf/data_wait_share of a run says if it matters")
    return ok("store: speed", found)


@contextmanager
def _place(store: Store) -> Iterator[Store]:
    """A folder of this look's own, which is removed.

    Raises:
        StorageError: nothing can be written there.
    """
    name = f".ecgchat-doctor-{secrets.token_hex(6)}"
    place = store.child(name)
    place.put("small", b"")
    try:
        yield place
    finally:
        with suppress(StorageError):
            store.delete_folder(name)


def conditional(uri: str) -> list[Finding]:
    """Whether the store heeds `If-Match`: it is how a reader learns that an object was replaced under it."""
    from botocore.exceptions import ClientError

    name = "store: conditional read"
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    key = f"{prefix.rstrip('/')}/.ecgchat-doctor-{secrets.token_hex(6)}".lstrip("/")
    client = _client()
    client.put_object(Bucket=bucket, Key=key, Body=b"conditional")
    try:
        try:
            client.get_object(Bucket=bucket, Key=key, IfMatch='"00000000000000000000000000000000"')["Body"].read()
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:
                return [ok(name, "If-Match is heeded")]
            raise
    finally:
        client.delete_object(Bucket=bucket, Key=key)
    return [warn(name, "If-Match is ignored", "never replace shards in place: build a changed data set under another URI")]


def clock(uri: str) -> list[Finding]:
    """This machine's clock beside the store's `Date`."""
    from botocore.exceptions import ClientError

    sent = time.time()
    try:
        reply = _client().head_bucket(Bucket=uri.removeprefix("s3://").partition("/")[0])
    except ClientError as error:
        reply = error.response
    received = time.time()
    date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
    if not date:
        return [warn("clock", "the store says no time", "see that the machines run chrony or systemd-timesyncd")]
    # Its second has begun, and not ended.
    theirs = email.utils.parsedate_to_datetime(date).timestamp() + 0.5
    return [judge_clock("clock", (sent + received) / 2 - theirs, 0.5 + (received - sent) / 2, "the store's")]


def judge_clock(name: str, ahead_s: float, uncertain_s: float, whose: str) -> Finding:
    """How far a clock is ahead of another.

    Args:
        name: of the finding.
        ahead_s: seconds; negative where it is behind.
        uncertain_s: what the measurement leaves open.
        whose: the other clock.
    """
    off = max(0.0, abs(ahead_s) - uncertain_s)
    found = f"{'ahead of' if ahead_s > 0 else 'behind'} {whose} by {off:.1f} s or more" if off else f"agrees with {whose}"
    advice = "let chrony or systemd-timesyncd set it: attempts and checkpoints are told apart by time, and S3 refuses at 15 min"
    if off > SKEW_FAIL_S:
        return fail(name, found, advice)
    return warn(name, found, advice) if off > SKEW_WARN_S else ok(name, found)


def _client() -> Any:
    import botocore.session
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=8, retries={"max_attempts": 0})
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return botocore.session.get_session().create_client("s3", config=config, region_name=region)


def _seconds(request: Callable[[], Any]) -> float:
    start = time.perf_counter()
    request()
    return time.perf_counter() - start
