"""How the script for Slurm ends, for every way in which a job can: Slurm's commands, Ray and the driver are stand-ins.

`test_slurm.py` runs some of the same on a real Slurm with a real Ray.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.launch.slurm import SlurmOptions, SlurmSpec, render
from cluster.launch.spec import LaunchSpec

WAIT_S = 60
MOST_RESTARTS = 2

# Asked for the address, for the nodes that joined, to be a Ray node, or to be the driver.
PYTHON = """#!/bin/bash
case "$*" in
    *get_node_ip_address*) echo 127.0.0.1 ;;
    *connect_ex*) touch "$NOTES/joining"; exec sleep "$JOIN_S" ;;
    *ray.scripts*) echo $$ > "$NOTES/ray"; exec sleep 600 ;;
    *) exec {python} "$@" ;;
esac
"""

SRUN = """#!/bin/bash
while [[ $1 != bash ]]; do shift; done
SLURM_NODEID=0 setsid "$@" & task=$!
trap 'kill -USR2 -- "-$task"' USR2
trap '' TERM
while kill -0 "$task" 2>/dev/null; do wait "$task"; status=$?; done
exit "$status"
"""

SCONTROL = """#!/bin/bash
echo "$*" >> "$NOTES/asked"
echo "JobId=1 JobName=a $JOB_SAYS Requeue=1"
"""

DRIVER = """
import os, signal, sys, time
def stop(*_):
    time.sleep(1)
    os._exit(75)
signal.signal(signal.SIGUSR1, stop)
open(os.environ["NOTES"] + "/driver", "w").close()
time.sleep(float(sys.argv[1]))
sys.exit(int(sys.argv[2]))
"""


class Job:
    """The script as Slurm would start it."""

    def __init__(
        self, folder: Path, *driver: str, join_s: float = 0, restarts: int = 0, says: str = "JobState=RUNNING"
    ) -> None:
        self.folder, self.id = folder, str(900_000_000 + secrets.randbelow(10**8))
        environment = folder / "environment"
        (environment / "bin").mkdir(parents=True)
        programs = {
            "python": PYTHON.format(python=sys.executable),
            "srun": SRUN,
            "scontrol": SCONTROL,
            "scancel": "#!/bin/sh\n",
        }
        for name, text in programs.items():
            (environment / "bin" / name).write_text(text)
            (environment / "bin" / name).chmod(0o755)
        (folder / "driver.py").write_text(DRIVER)
        for name in ("notes", "scratch", "home"):
            (folder / name).mkdir()
        command = ("python", str(folder / "driver.py"), *driver)
        script = render(SlurmSpec(LaunchSpec("", command, name="a"), SlurmOptions(requeue=MOST_RESTARTS)))
        (folder / "script").write_text(script.replace(f"venv={sys.prefix}\n", f"venv={environment}\n"))
        ours = {"NOTES": str(folder / "notes"), "JOIN_S": str(join_s), "JOB_SAYS": says}
        ours |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "scratch"), "SLURM_SUBMIT_DIR": str(folder)}
        ours |= {"SLURM_JOB_ID": self.id, "SLURM_JOB_NUM_NODES": "1", "PATH": os.environ["PATH"]}
        ours |= {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
        with (folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                ["bash", folder / "script"], env=ours, stdout=output, stderr=output, start_new_session=True
            )

    def wait_for(self, note: str) -> str:
        """Until it is noted; what it says."""
        deadline = time.monotonic() + WAIT_S
        while not (self.folder / "notes" / note).exists():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)
        time.sleep(0.2)
        return (self.folder / "notes" / note).read_text()

    def signal(self, number: signal.Signals) -> None:
        """As Slurm's `B:` does: to the shell of the script alone."""
        self.process.send_signal(number)

    @property
    def said(self) -> str:
        """Its output."""
        return (self.folder / "output").read_text()

    def ended(self) -> tuple[int, bool]:
        """Its status, and whether it asked to be started again; it leaves nothing behind."""
        status = self.process.wait(WAIT_S)
        assert list((self.folder / "home" / ".ecgchat").glob("*")) == []
        assert list((self.folder / "scratch").iterdir()) == list(Path("/tmp").glob(f"ecgchat-{self.id}-*")) == []
        asked = self.folder / "notes" / "asked"
        return status, asked.exists() and f"requeue {self.id}\n" in asked.read_text()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Jobs, none of which outlives the test."""
    jobs: list[Job] = []

    def start(*driver: str, **facts: object) -> Job:
        jobs.append(Job(tmp_path / str(len(jobs)), *driver, **facts))  # type: ignore[arg-type]
        return jobs[-1]

    yield start
    for job in jobs:
        if job.process.poll() is None:
            job.process.kill()


@pytest.mark.parametrize("status", [0, 1, 2, 75])
def test_the_drivers_status_is_the_jobs(status: int, begin: Callable[..., Job]) -> None:
    assert begin("0", str(status)).ended() == (status, False)


def test_a_warning_ends_the_run_and_it_starts_again(begin: Callable[..., Job]) -> None:
    job = begin("600", "0")
    job.wait_for("driver")
    job.signal(signal.SIGUSR1)
    assert job.ended() == (75, True), job.said
    assert f"to be started again, 1 of {MOST_RESTARTS} times" in job.said


def test_two_warnings_are_one(begin: Callable[..., Job]) -> None:
    job = begin("600", "0")
    job.wait_for("driver")
    job.signal(signal.SIGUSR1)
    time.sleep(0.2)
    job.signal(signal.SIGUSR1)
    assert job.ended() == (75, True), job.said
    assert job.said.count("Slurm warned") == 1


def test_it_does_not_start_again_more_often_than_it_may(begin: Callable[..., Job]) -> None:
    job = begin("600", "0", restarts=MOST_RESTARTS)
    job.wait_for("driver")
    job.signal(signal.SIGUSR1)
    assert job.ended() == (75, False), job.said
    assert f"started again {MOST_RESTARTS} times already; submit it again" in job.said


def test_slurm_itself_may_not_start_it_more_often_either(begin: Callable[..., Job]) -> None:
    job = begin("600", "0", restarts=MOST_RESTARTS + 1)
    assert job.ended() == (75, False), job.said
    assert not (job.folder / "notes" / "driver").exists()


def test_a_warning_before_the_run_began_starts_nothing_again(begin: Callable[..., Job]) -> None:
    job = begin("600", "0", join_s=3)
    job.wait_for("joining")
    job.signal(signal.SIGUSR1)
    assert job.ended() == (75, False), job.said
    assert "give it more --time, or a smaller --warning-s" in job.said
    assert not (job.folder / "notes" / "driver").exists()


@pytest.mark.parametrize(
    ("says", "again"),
    [
        ("JobState=COMPLETING Reason=None PreemptTime=None", False),
        ("JobState=CANCELLED Reason=None PreemptTime=2026-11-21T19:00:00", False),
        ("JobState=COMPLETING Reason=TimeLimit PreemptTime=None", True),
        ("JobState=RUNNING Reason=None PreemptTime=2026-11-21T19:00:00", True),
    ],
)
@pytest.mark.parametrize("warned", [False, True])
def test_only_a_limit_and_a_preemption_start_it_again(says: str, again: bool, warned: bool, begin: Callable[..., Job]) -> None:
    job = begin("600", "0", says=says)
    job.wait_for("driver")
    if warned:
        job.signal(signal.SIGUSR1)
        time.sleep(0.2)
    job.signal(signal.SIGTERM)
    assert job.ended() == (75, again), job.said


def test_a_ray_node_that_ends_ends_the_job(begin: Callable[..., Job]) -> None:
    job = begin("600", "0")
    job.wait_for("driver")
    os.kill(int(job.wait_for("ray")), signal.SIGKILL)
    assert job.ended() == (1, False), job.said
    assert "a Ray node ended before the job; the nodes said:" in job.said


def test_nodes_that_do_not_join(begin: Callable[..., Job]) -> None:
    job = begin("600", "0", join_s=600)
    job.wait_for("joining")
    os.kill(int(job.wait_for("ray")), signal.SIGKILL)
    assert job.ended() == (1, False), job.said
