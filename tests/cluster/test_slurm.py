"""On a real Slurm of this machine: the script brings its own Ray cluster, and whatever ends it, nothing is lost or left."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import metrics
from cluster.launch import slurm as slurm_jobs
from cluster.launch.slurm import SlurmOptions, SlurmSpec
from cluster.launch.spec import LaunchSpec, launches
from cluster.markers import committed
from jobs import submit
from shards.storage import Store
from tests.cluster.real_slurm import NODES, PROJECT, Slurm, serve
from tests.cluster.small_stage import NOTES
from tests.cluster.test_order_survives import GLOBAL_BATCH, noted, small_job
from tests.shards.small_sets import build_small_set

pytestmark = pytest.mark.slow

JOB_S = 300
"""Of any one wait, on a machine that has much else to do."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """One for all tests."""
    with serve() as slurm:
        yield slurm


class Job:
    """A job whose driver notes what it sees."""

    def __init__(self, slurm: Slurm, folder: Path, waits: int, status: int = 0, nodes: int = 1, **options: Any) -> None:
        self.slurm, self.notes, self.output = slurm, folder / "notes", folder / "job.out"
        command = ("python", "-m", "tests.cluster.slurm_driver", str(self.notes), str(waits), str(status))
        own = (f"output={self.output}", *options.pop("sbatch", ()))
        spec = SlurmSpec(LaunchSpec("", command, name="driver", nodes=nodes), SlurmOptions(sbatch=own, **options))
        # The script lands beside the output.
        self.id = slurm_jobs.submit(spec, PROJECT)
        (PROJECT / f"driver_{self.id}.sbatch").rename(folder / "job.sbatch")

    def noted(self) -> list[str]:
        """Up to now."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def wait_until(self, reached: Callable[[list[str]], bool]) -> None:
        """Until the driver has noted something."""
        self.slurm.wait_for(self.id, lambda facts: reached(self.noted()), self.output, JOB_S)

    def ended(self) -> tuple[str, str]:
        """State and exit code, once it has ended for good and nothing of it is left."""
        facts = self.slurm.ended(self.id, self.output, JOB_S)
        self.slurm.assert_nothing_is_left(self.id)
        return facts["JobState"], facts["ExitCode"]


def test_a_stage_is_submitted_and_followed_and_its_status_is_the_commands(
    slurm: Slurm,
    small_job: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, run = tmp_path / "config.json", Store(f"{tmp_path}/run")
    config.write_text(json.dumps({**small_job, "run": {"folder": run.uri, "name": "first"}}))
    # The job starts where it is submitted.
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.chdir(tmp_path)
    words = ["--nodes", "1", "--cpus-per-node", "1", "--time", "10", "--sbatch", "comment=a test"]
    assert submit.main(["slurm", "coca", "--config", str(config), "--data.shards", f"{tmp_path}/nothing", *words]) == 2
    said = capsys.readouterr().out
    assert f"{tmp_path}/nothing" in said
    assert said.splitlines()[-1].endswith("failed")
    [record] = launches(run)
    assert record["launcher"] == "slurm"
    assert f"Slurm job {record['id']}" in said
    [script] = tmp_path.glob("*.sbatch")
    assert script.name == f"first-coca_{record['id']}.sbatch"
    assert [path.read_text() for path in tmp_path.glob("run/launch/*.sbatch")] == [script.read_text()]
    slurm.assert_nothing_is_left(record["id"])


EPOCHS, STEPS_AN_EPOCH = 60, 6


def test_a_run_goes_on_after_its_time_limit(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = build_small_set(tmp_path / "shards", STEPS_AN_EPOCH * GLOBAL_BATCH, 8)
    settings = small_job(shards, tmp_path / "run", epochs=EPOCHS, zero_stage=2)
    settings["train"]["checkpoint"] = {"every_steps": 10**6}
    settings["launch"] = {"workers": NODES, "threads": 1}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    notes = tmp_path / "notes"
    notes.mkdir()
    monkeypatch.setenv(NOTES, str(notes))
    command = ("python", "-m", "tests.cluster.run_ray", "tests.cluster.slow_stage:slow", str(tmp_path / "settings.json"))
    output = tmp_path / "job.out"
    options = SlurmOptions(time="60", warning_s=60, requeue=3, sbatch=(f"output={output}",))
    job = slurm_jobs.submit(SlurmSpec(LaunchSpec("", command, name="limited", nodes=NODES), options), PROJECT)
    (PROJECT / f"limited_{job}.sbatch").rename(tmp_path / "job.sbatch")

    first = notes / "rank-0.jsonl"
    slurm.wait_for(job, lambda facts: first.exists() and first.read_text().count("\n") > 2, output, JOB_S)
    hours, minutes, _ = slurm.wait_for(job, bool, output, JOB_S)["RunTime"].split(":")
    # Within a minute from now: Slurm warns as soon as it sees that.
    slurm.command("scontrol", "update", f"JobId={job}", f"TimeLimit={int(hours) * 60 + int(minutes) + 1}")
    slurm.wait_for(job, lambda facts: facts["Restarts"] == "1", output, JOB_S)
    # The shortened limit is the requeued job's too.
    slurm.command("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    begin_soon(slurm, job)
    facts = slurm.ended(job, output, JOB_S)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", "1"), output.read_text()[-3000:]
    slurm.assert_nothing_is_left(job)

    stopped, done = (marker.step for marker in committed(Store(f"{tmp_path}/run/checkpoints")))
    assert 2 < stopped < done == EPOCHS * STEPS_AN_EPOCH
    assert [attempt["resumed_from"] for attempt in metrics.attempts(tmp_path / "run" / metrics.FILE)] == [0, stopped]
    lines = [json.loads(line) for line in (tmp_path / "run" / metrics.FILE).read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, done + 1))
    used = noted(notes, NODES)
    assert list(used) == list(range(1, done + 1))
    for start in range(1, done, STEPS_AN_EPOCH):
        keys = [key for step in range(start, start + STEPS_AN_EPOCH) for key in used[step]]
        assert len(keys) == len(set(keys)) == STEPS_AN_EPOCH * GLOBAL_BATCH


@pytest.mark.parametrize("warned", [False, True])
def test_a_cancelled_job_commits_before_it_is_killed_and_does_not_come_back(warned: bool, slurm: Slurm, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, waits=1, nodes=NODES)
    job.wait_until(bool)
    if warned:
        slurm.command("scancel", "--batch", "--signal=USR1", job.id)
        job.wait_until(lambda noted: "asked to stop" in noted)
    slurm.command("scancel", job.id)
    assert job.ended()[0] == "CANCELLED"
    # Ray had not ended by the signal that reached all of its processes.
    assert job.noted()[0] == f"start 0 with {NODES} nodes and {NODES} CPUs"
    assert job.noted()[-1] == f"committed while Ray has {NODES} nodes"


def test_a_preempted_job_goes_on_when_the_other_has_ended(slurm: Slurm, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, waits=1, requeue=1)
    job.wait_until(bool)
    urgent = slurm.command(
        *("sbatch", "--parsable", f"--nodes={NODES}", "--partition=urgent"),
        *(f"--output={tmp_path}/urgent.out", "--wrap", "echo urgent; date"),
    ).strip()
    assert slurm.ended(urgent, tmp_path / "urgent.out", JOB_S)["JobState"] == "COMPLETED"
    assert "start 1 with 1 nodes and 1 CPUs" not in job.noted()
    begin_soon(slurm, job.id)
    assert job.ended() == ("COMPLETED", "0:0")
    assert job.noted()[2:] == ["committed while Ray has 1 nodes", "start 1 with 1 nodes and 1 CPUs"]


def test_no_job_starts_more_often_than_it_may(slurm: Slurm, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, waits=2, requeue=0)
    job.wait_until(bool)
    slurm.command("scancel", "--batch", "--signal=USR1", job.id)
    assert job.ended() == ("FAILED", "75:0")
    assert "ecgchat: started again 0 times already; submit it again to go on" in job.output.read_text()


def test_a_lost_node_ends_the_job(slurm: Slurm, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, waits=1, nodes=NODES)
    job.wait_until(bool)
    raylets = [process for process in slurm.processes() if process.name() == "raylet"]
    [raylet] = [process for process in raylets if process.environ()["SLURM_NODEID"] == "1"]
    os.kill(raylet.pid, signal.SIGKILL)
    assert job.ended() == ("FAILED", "1:0")
    assert "ecgchat: a Ray node ended before the job; the nodes said:" in job.output.read_text()


def begin_soon(slurm: Slurm, job: str) -> None:
    """Slurm lets a job that it starts again wait for two minutes.

    Not at once: a node refuses a credential of the very second in which it revoked the one before ("Job credential revoked").
    """
    slurm.command("scontrol", "update", f"JobId={job}", "StartTime=now+5")
