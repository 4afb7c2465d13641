"""On a real Slurm of this machine: the sbatch script trains over two nodes, and the driver's status is the job's."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.checkpoint import committed
from cluster.errors import RunError
from cluster.local.servers import free_ports, start, stop, wait_until
from shards.storage import Store

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "cluster" / "slurm" / "stage.sbatch"
NODES = 2
JOB_S = 150
DAEMONS = ("munged", "slurmctld", "slurmd")
UNFINISHED = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING")

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
KillWait=30
FirstJobId={first_job}
{nodes}
PartitionName=test Nodes=ALL Default=YES State=UP
"""

MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}


@dataclass(frozen=True)
class Slurm:
    """A running Slurm of nodes with one CPU each, all on this machine."""

    folder: Path
    environment: dict[str, str]

    def command(self, *command: str, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands from the project's folder."""
        return subprocess.run(
            command, env=self.environment, cwd=PROJECT, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def idle(self, node: int) -> bool:
        """Whether a node waits for work."""
        return self.command("sinfo", "--noheader", f"--nodes=n{node}", "--format=%t").stdout.strip() == "idle"

    def processes(self) -> list[psutil.Process]:
        """Whatever carries this Slurm's environment: its daemons and all that its jobs started."""
        ours = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    ours.append(process)
        return ours

    def submit(self, output: Path, nodes: int, *arguments: str) -> tuple[dict[str, str], str]:
        """Run the stage `coca` to its end: what Slurm says of the job, and its output."""
        done = self.command("sbatch", "--parsable", f"--nodes={nodes}", f"--output={output}", str(SCRIPT), "coca", *arguments)
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + JOB_S
        # `sbatch --wait` asks at ever longer intervals.
        while (job := self.job(done.stdout.strip()))["JobState"] in UNFINISHED:
            if time.monotonic() > deadline:
                pytest.fail(
                    f"the job is {job['JobState']} after {JOB_S} s: {output.read_text()[-3000:] if output.exists() else ''}"
                )
            time.sleep(0.5)
        return job, output.read_text()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job."""
        said = self.command("scontrol", "--oneliner", "show", "job", number).stdout
        return dict(field.split("=", 1) for field in said.split() if "=" in field)


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """Munge, the controller and the nodes' daemons, with all their state in one folder, which is removed."""
    programs = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in DAEMONS}
    missing = [name for name, path in programs.items() if path is None]
    if missing or not shutil.which("sbatch"):
        pytest.skip(f"{', '.join(missing) or 'sbatch'} not installed (Debian: slurm-wlm, munge)")
    # Munge's socket lies below it, and its path must stay under 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    slurm = Slurm(folder, _environment(folder))
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _start(slurm, {name: str(path) for name, path in programs.items()}, daemons)
        yield slurm
    finally:
        for daemon in reversed(daemons):
            stop(daemon)
        # A job that hangs has sessions of its own.
        for process in slurm.processes():
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """This process's, less what an outer job would say, and with a home of its own."""
    outer = ("RAY_", "SLURM_", "SBATCH_")
    ours = {"SLURM_CONF": str(folder / "slurm.conf"), "HOME": str(folder / "home"), "ECGCHAT_VENV": sys.prefix}
    return {name: value for name, value in os.environ.items() if not name.startswith(outer)} | ours


def _configure(folder: Path) -> None:
    """Everything that the daemons read."""
    controller_port, *ports = free_ports(1 + NODES)
    host = socket.gethostname().split(".")[0]
    node = "NodeName=n{} NodeHostname={} NodeAddr=127.0.0.1 Port={} CPUs=1 State=UNKNOWN"
    nodes = "\n".join(node.format(i, host, port) for i, port in enumerate(ports))
    values = {"host": host, "user": getpass.getuser(), "folder": folder, "controller_port": controller_port, "nodes": nodes}
    # The script's ports follow from it, and another run of this test may be under way.
    values["first_job"] = 1 + secrets.randbelow(50_000)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    for name in ("munge", "state", "home", *(f"spool.n{i}" for i in range(NODES))):
        (folder / name).mkdir()
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def _start(slurm: Slurm, programs: dict[str, str], daemons: list[subprocess.Popen[bytes]]) -> None:
    """Start the daemons one after the other, each once the one before it answers."""

    def serve(name: str, ready: Callable[[], bool], *command: str) -> None:
        log = slurm.folder / f"{name}.log"
        daemons.append(start([*command], slurm.environment, log))
        try:
            wait_until(ready, daemons[-1], name, log, timeout_s=20)
        except RunError as error:
            pytest.fail(f"{error}: {log.read_text()[-3000:]}")

    _configure(slurm.folder)
    munge = slurm.folder / "munge"
    files = [f"--{option}={munge / file}" for option, file in MUNGE_FILES.items()]
    serve("munged", (munge / "socket").exists, programs["munged"], "--foreground", "--force", *files)
    serve("slurmctld", lambda: "UP" in slurm.command("scontrol", "ping").stdout, programs["slurmctld"], "-D")
    for node in range(NODES):
        serve(f"slurmd.n{node}", partial(slurm.idle, node), programs["slurmd"], "-D", "-N", f"n{node}")


def test_a_job_trains_over_two_nodes(slurm: Slurm, small_job: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**small_job, "train": {**small_job["train"], "steps": 6}}))
    job, output = slurm.submit(tmp_path / "job.out", NODES, "--config", str(config))
    assert (job["JobState"], job["ExitCode"], job["NumNodes"]) == ("COMPLETED", "0:0", "2"), output[-3000:]
    assert committed(Store(small_job["run"]["folder"]).child("checkpoints"))[-1].step == 6
    assert_nothing_is_left(slurm, job)


def test_the_drivers_status_is_the_jobs(slurm: Slurm, small_job: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(small_job))
    job, output = slurm.submit(tmp_path / "job.out", 1, "--config", str(config), "--train.stpes", "6")
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "2:0"), output[-3000:]
    assert "train.stpes: no such setting; did you mean train.steps?" in output
    assert_nothing_is_left(slurm, job)


def assert_nothing_is_left(slurm: Slurm, job: dict[str, str]) -> None:
    """Neither a token, nor a folder of a node, nor a process of a job that has ended."""
    assert list((slurm.folder / "home" / ".ecgchat").iterdir()) == []
    assert list(Path("/tmp").glob(f"ecgchat-{job['JobId']}-*")) == []
    deadline = time.monotonic() + 10
    # Ray's helpers see a moment later that their node is gone.
    while left := [process.name() for process in slurm.processes() if process.name() not in DAEMONS]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
