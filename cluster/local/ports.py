"""Free ports and waiting for servers."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from cluster.errors import RunError


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now; all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path, timeout_s: float) -> None:
    """Until a server answers.

    Raises:
        RunError: its process ended, or it does not answer in time; names its log.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        if process.poll() is not None:
            raise RunError(f"{what} ended with status {process.returncode} before it answered; see {log}")
        if time.monotonic() > deadline:
            raise RunError(f"{what} did not answer within {timeout_s:g} s; see {log}")
        time.sleep(0.1)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port of loopback."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


def stop(process: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    """End a process that we started, kindly first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
