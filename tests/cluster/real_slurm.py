"""A real Slurm on this machine: its controller, and nodes that are daemons side by side, with all their state in one folder."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.errors import RunError
from cluster.launch.slurm import UNFINISHED, job_facts
from cluster.local.servers import free_ports, start, stop, wait_until

PROJECT = Path(__file__).parents[2]
NODES = 2
DAEMONS = ("munged", "slurmctld", "slurmd")
NOT_A_JOBS = (*DAEMONS, "slurmstepd")
START_S = 60

# MessageTimeout, InactiveLimit and the like stay as they come; a lost node is found in seconds instead of minutes.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
OverTimeLimit=5
FirstJobId={first_job}
{nodes}
PartitionName=test Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=120
PartitionName=urgent Nodes=ALL State=UP PriorityTier=9
"""

MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}


@dataclass(frozen=True)
class Slurm:
    """A running Slurm of nodes with one CPU each; this process's environment leads to it."""

    folder: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def command(self, *command: str) -> str:
        """What one of Slurm's commands says; it has to succeed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def idle(self, node: int) -> bool:
        """Whether a node waits for work."""
        words = ["sinfo", "--noheader", f"--nodes=n{node}", "--partition=test", "--format=%t"]
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout.strip() == "idle"

    def processes(self) -> list[psutil.Process]:
        """Whatever carries this Slurm's environment: its daemons and all that its jobs started."""
        ours = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"] and process.pid != os.getpid():
                    ours.append(process)
        return ours

    def wait_for(self, job: str, reached: Callable[[dict[str, str]], bool], output: Path, timeout_s: float) -> dict[str, str]:
        """Until something is so of a job; what Slurm then says of it."""
        deadline = time.monotonic() + timeout_s
        # `sbatch --wait` asks at ever longer intervals.
        while not reached(facts := job_facts(job)):
            if time.monotonic() > deadline:
                said = output.read_text()[-3000:] if output.exists() else "nothing"
                pytest.fail(f"the job is {facts['JobState']} after {timeout_s} s; it said: {said}")
            time.sleep(0.5)
        return facts

    def ended(self, job: str, output: Path, timeout_s: float) -> dict[str, str]:
        """What Slurm says of a job once it has ended for good."""
        return self.wait_for(job, lambda facts: facts["JobState"] not in UNFINISHED, output, timeout_s)

    def assert_nothing_is_left(self, job: str) -> None:
        """Neither a token, nor a folder of a node, nor a process of a job that has ended."""
        deadline = time.monotonic() + 40
        # Ray's helpers see a moment later that their node is gone.
        while left := [process.name() for process in self.processes() if process.name() not in NOT_A_JOBS]:
            assert time.monotonic() < deadline, left
            time.sleep(0.2)
        assert list((self.folder / "home" / ".ecgchat").glob("*")) == []
        assert list(Path("/tmp").glob(f"ecgchat-{job}-*")) == []
        assert list((self.folder / "scratch").glob("ecgchat-*")) == []


@contextmanager
def serve() -> Iterator[Slurm]:
    """Munge, the controller and the nodes' daemons while the context lasts; skips the test where Slurm is not installed."""
    programs = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in DAEMONS}
    missing = [name for name, path in programs.items() if path is None]
    if missing or not shutil.which("sbatch"):
        pytest.skip(f"{', '.join(missing) or 'sbatch'} not installed (Debian: slurm-wlm, munge)")
    # Munge's socket lies below it, and its path must stay under 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    slurm = Slurm(folder, _environment(folder))
    before = dict(os.environ)
    try:
        _start(slurm, {name: str(path) for name, path in programs.items()})
        os.environ.clear()
        os.environ.update(slurm.environment)
        yield slurm
    finally:
        os.environ.clear()
        os.environ.update(before)
        for daemon in reversed(slurm.daemons.values()):
            stop(daemon)
        # A job that hangs has sessions of its own.
        for process in slurm.processes():
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """This process's, less what an outer job would say, and with a home and a scratch folder of its own."""
    outer = ("RAY_", "SLURM_", "SBATCH_")
    ours = {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "scratch"),
        "ECGCHAT_VENV": sys.prefix,
    }
    return {name: value for name, value in os.environ.items() if not name.startswith(outer)} | ours


def _configure(folder: Path) -> None:
    """Everything that the daemons read."""
    controller_port, *ports = free_ports(1 + NODES)
    host = socket.gethostname().split(".")[0]
    node = "NodeName=n{} NodeHostname={} NodeAddr=127.0.0.1 Port={} CPUs=1 State=UNKNOWN"
    nodes = "\n".join(node.format(i, host, port) for i, port in enumerate(ports))
    values: dict[str, Any] = {"host": host, "user": getpass.getuser(), "folder": folder, "controller_port": controller_port}
    # The script's ports follow from it, and another run of this test may be under way.
    values |= {"nodes": nodes, "first_job": 1 + secrets.randbelow(50_000)}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    for name in ("munge", "state", "home", "scratch", *(f"spool.n{i}" for i in range(NODES))):
        (folder / name).mkdir()
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def _start(slurm: Slurm, programs: dict[str, str]) -> None:
    """Start the daemons one after the other, each once the one before it answers."""

    def serve(name: str, ready: Callable[[], bool], *command: str) -> None:
        log = slurm.folder / f"{name}.log"
        slurm.daemons[name] = start([*command], slurm.environment, log)
        try:
            wait_until(ready, slurm.daemons[name], name, log, START_S)
        except RunError as error:
            pytest.fail(f"{error}: {log.read_text()[-3000:]}")

    def answers() -> bool:
        done = subprocess.run(["scontrol", "ping"], env=slurm.environment, capture_output=True, text=True, check=False)
        return "UP" in done.stdout

    _configure(slurm.folder)
    munge = slurm.folder / "munge"
    files = [f"--{option}={munge / file}" for option, file in MUNGE_FILES.items()]
    serve("munged", (munge / "socket").exists, programs["munged"], "--foreground", "--force", *files)
    serve("slurmctld", answers, programs["slurmctld"], "-D")
    for node in range(NODES):
        serve(f"slurmd.n{node}", partial(slurm.idle, node), programs["slurmd"], "-D", "-N", f"n{node}")
