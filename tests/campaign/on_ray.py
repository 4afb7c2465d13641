"""The same run under Ray Train: a head without workers of its own, one node with room for both ranks, and a submitted job."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from cluster.local import ray_head
from cluster.local.ray_head import RayHead
from cluster.local.servers import free_ports, start, stop
from tests.campaign.attempt import PROJECT, RANKS
from tests.campaign.job import TROUBLE
from tests.campaign.scene import OURS, Scene
from tests.cluster.ranks import Ended

HANGS_S = 400
PACE_S = 0.4
"""Of a step: the kill is to come in the middle of the run, and finding processes takes time."""


class Submitted:
    """One submission of the run, with what a `tests.campaign.attempt.Attempt` offers."""

    def __init__(self, scene: RayScene, folder: Path) -> None:
        folder.mkdir(parents=True)
        file, self._log = folder / "settings.json", folder / "submit.log"
        launch = {"launcher": "ray", "workers": RANKS, "threads": 1, "max_failures": 3}
        file.write_text(json.dumps({**scene.settings, "launch": launch}))
        command = [sys.executable, "-m", "jobs.cli", "submit", "ray", "--address", scene.head.address, "--patience", "15"]
        command += ["--working-dir", str(PROJECT), "--", "python", "-m", "tests.campaign.job", "--config", str(file)]
        with self._log.open("wb") as log:
            environment = {**os.environ, **scene.head.environment}
            self._process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)
        self.killed: set[int] = set()

    def running(self) -> bool:
        return self._process.poll() is None

    def said(self) -> list[Ended]:
        return [Ended(self._process.poll(), "", self._log.read_text(errors="replace"))]

    def wait(self) -> list[Ended]:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(HANGS_S)
        ended = self.said()
        self.kill()
        return ended

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class RayScene(Scene):
    """A run on a Ray cluster of its own."""

    hangs_s = HANGS_S

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._cluster = ExitStack()
        self.node: subprocess.Popen[bytes] | None = None
        self.head: RayHead
        self.start_cluster()

    def start_cluster(self) -> None:
        """A head and a node."""
        self.settle()
        environment = {**self.site.server.environment, **self.environment, "PYTHONPATH": str(PROJECT), TROUBLE: "{}"}
        self._environment = {**os.environ, **environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        log = self.folder / "ray.log"
        self.head = self._cluster.enter_context(ray_head.serve(log, environment, cpus=0))
        self.start_node()

    def start_node(self) -> None:
        """Another node, in the place of one that is lost."""
        agent_grpc, agent_http = free_ports(2)
        # In the head's folder it would delete a job's working directory as soon as it has no more use for it itself.
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        self._cluster.callback(shutil.rmtree, folder, ignore_errors=True)
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--address", self.head.nodes),
            *("--node-ip-address", "127.0.0.1", "--num-cpus", str(RANKS), "--disable-usage-stats", "--temp-dir", folder),
            *("--min-worker-port", "0", "--max-worker-port", "0"),  # those of the head are taken
            *("--dashboard-agent-grpc-port", str(agent_grpc), "--dashboard-agent-listen-port", str(agent_http)),
        ]
        ending = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        environment = {**self._environment, **self.head.environment, **ending}
        self.node = start(command, environment, self.folder / "node.log")
        self._cluster.callback(stop, self.node)
        deadline = time.monotonic() + HANGS_S
        while self.nodes_alive() < 2:
            assert time.monotonic() < deadline, (self.folder / "node.log").read_text()
            time.sleep(0.2)

    def settle(self) -> None:
        """End the cluster, whatever is left of it."""
        self._cluster.close()

    def nodes_alive(self) -> int:
        """As the head sees it."""
        token = Path(self.head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(
            f"{self.head.address}/nodes?view=summary", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            nodes = json.loads(reply.read())["data"]["summary"]
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def begin(self, trouble: dict[str, Any] | None = None, **environment: str) -> Any:
        """Submit the run."""
        self.attempts.append(Submitted(self, self.folder / f"attempt-{len(self.attempts) + 1}"))  # type: ignore[arg-type]
        return self.attempts[-1]

    def close(self) -> None:
        """End the cluster too."""
        try:
            super().close()
        finally:
            self.settle()

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those of this run whose command lines hold all of some words."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if all(word in line for word in words) and process.environ().get(OURS) == self.name:
                    found.append(process)
        return found


def kill_a_worker(scene: RayScene) -> None:
    scene.moment()
    workers = scene.processes("RayTrainWorker")
    assert len(workers) == RANKS, f"expected {RANKS} workers: {workers}"
    scene.generator.choice(workers).kill()


def kill_the_raylet(scene: RayScene) -> None:
    """Of the node that has the workers; another node comes in its place."""
    scene.moment()
    raylets = [one for one in scene.processes("raylet/raylet") if os.getsid(one.pid) == scene.node.pid]
    assert len(raylets) == 1, raylets
    raylets[0].kill()
    scene.start_node()


def kill_the_node(scene: RayScene) -> None:
    """Every process of it, at once; another comes in its place."""
    scene.moment()
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) == scene.node.pid:
                os.kill(pid, signal.SIGKILL)
    scene.start_node()


def kill_the_head(scene: RayScene) -> None:
    scene.moment()
    [server] = scene.processes("gcs_server")
    server.kill()


def another_cluster(scene: RayScene) -> None:
    scene.start_cluster()


def driver(scene: RayScene) -> psutil.Process:
    """The process that the submission started, not the shell around it."""
    [found] = [one for one in scene.processes("-m tests.campaign.job") if "sh" not in one.name()]
    return found


def kill_the_driver(scene: RayScene) -> None:
    scene.moment()
    driver(scene).kill()


def signal_the_driver(scene: RayScene) -> None:
    scene.moment()
    driver(scene).send_signal(scene.generator.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))
