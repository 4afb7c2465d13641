"""A real Ray cluster of one node on loopback, with its dashboard and token authentication."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.local.servers import free_ports, listens, start, stop, wait_until

START_S = 120


@dataclass(frozen=True)
class RayHead:
    """A running head."""

    address: str
    """Of the dashboard and the Jobs API: `http://127.0.0.1:PORT`."""
    environment: dict[str, str]
    """What a client needs to be let in."""
    nodes: str = ""
    """Where other nodes join: `127.0.0.1:PORT`."""


@contextmanager
def serve(log: Path, environment: Mapping[str, str], cpus: int, token: str = "") -> Iterator[RayHead]:
    """A Ray head while the context lasts.

    It is started with `--block` and ended by its own process: `ray stop` would end every Ray node of the user.

    Args:
        log: takes what it prints.
        environment: for the head and so for every worker: the place for the store's keys.
        cpus: that it offers.
        token: that lets a client in; a fresh one where it is empty.

    Raises:
        RunError: it does not start.
    """
    # Ray's sockets lie below its folder, and their paths must stay under 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token_file = folder / "auth_token"
    token_file.touch(mode=0o600)
    token_file.write_text(token or secrets.token_hex(32))
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}
    port, dashboard, agent_grpc, agent_http, client = free_ports(5)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", "127.0.0.1", "--port", str(port), "--num-cpus", str(cpus), "--temp-dir", str(folder)),
        *("--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        *("--dashboard-agent-grpc-port", str(agent_grpc), "--dashboard-agent-listen-port", str(agent_http)),
        *("--ray-client-server-port", str(client), "--disable-usage-stats"),
    ]
    # A submitted `python` is to be the one that runs here, whether or not its environment is activated.
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    # Its one node has nobody to hand its work to, so that draining would only wait.
    ending = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    process = start(command, {**os.environ, **environment, **path, **access, **ending}, log)
    try:
        wait_until(lambda: listens(dashboard) and listens(agent_http), process, "the Ray head", log, START_S)
        yield RayHead(f"http://127.0.0.1:{dashboard}", access, f"127.0.0.1:{port}")
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)
