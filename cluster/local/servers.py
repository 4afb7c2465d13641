"""Free ports, and starting and ending servers without leaving anything behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from cluster.errors import RunError

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now; all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((LOOPBACK, 0))
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


def listens(port: int, address: str = LOOPBACK) -> bool:
    """Whether somebody accepts connections on a port."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((address, port)) == 0


def start(command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that `stop` finds whatever it starts in turn."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


def stop(process: subprocess.Popen[bytes], timeout_s: float = 20) -> None:
    """End a server that `start` started, kindly first, and every process of its session."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
