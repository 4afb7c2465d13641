"""`ecgchat runs`: what a run's folder tells from outside, and ending and resuming a run that is really there."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cluster import metrics
from cluster.launch.spec import LaunchSpec, record_launch
from cluster.markers import committed
from cluster.stopping import STOPPED_STATUS
from jobs.runs.state import SILENT_S, read_run
from shards.storage import Store
from tests.jobs.conftest import coca_settings

PROJECT = Path(__file__).parents[2]

ATTEMPTS = [{"attempt": "a1", "resumed_from": 0, "started": "2026-11-21T10:00:00+00:00"}]
STEPS = [{"attempt": "a1", "step": step, "samples": step * 8, "train/loss": 5.0 - step} for step in (1, 2, 3)]
STOPPED = {"event": "stopped", "step": 3, "attempt": "a1", "said": "coca: asked to stop after step 3 (SIGTERM)"}
FAILED = {"attempt": "a1", "rank": 1, "host": "n1", "step": 3, "said": "the disk of this rank is gone"}


def make_run(folder, lines=(*ATTEMPTS, *STEPS), checkpoints=(3,), steps=9, failure=None):
    """The folder of a run, as its ranks would leave it."""
    store = Store(str(folder))
    store.put("config.json", json.dumps({"stage": "coca", "steps": steps, "run": {"run": {"name": "demo"}}}).encode())
    store.put("wandb_run.json", b"{}")
    for step in checkpoints:
        store.put(f"checkpoints/step-{step:06d}.committed.json", b"{}")
    if failure:
        store.put("failure.json", json.dumps(failure).encode())
    store.put(metrics.FILE, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return store


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "running"),
        ({"checkpoints": ()}, "running"),
        ({"checkpoints": (3, 9)}, "finished"),
        ({"lines": (*ATTEMPTS, *STEPS, STOPPED)}, "stopped"),
        ({"lines": (*ATTEMPTS, *STEPS, STOPPED, {**ATTEMPTS[0], "attempt": "a2", "resumed_from": 3})}, "running"),
        ({"failure": FAILED}, "failed"),
        ({"failure": {**FAILED, "followed_by": "a2"}}, "running"),
    ],
)
def test_the_state_of_a_run_is_read_from_its_folder(tmp_path, facts, expected):
    assert read_run(make_run(tmp_path / "run", **facts)).state == expected


def test_a_run_that_has_done_nothing_for_long_is_silent(tmp_path):
    make_run(tmp_path / "run")
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (time.time() - 2 * SILENT_S,) * 2)
    assert read_run(Store(str(tmp_path / "run"))).state == "silent"


def test_an_attempt_that_has_begun_since_the_stop_is_running(tmp_path):
    make_run(tmp_path / "run", lines=(*ATTEMPTS, *STEPS, STOPPED))
    os.utime(tmp_path / "run" / metrics.FILE, (time.time() - 60,) * 2)
    assert read_run(Store(str(tmp_path / "run"))).state == "running"


def test_a_launch_that_has_not_begun_is_known(tmp_path):
    record_launch(LaunchSpec("coca", (), "demo", str(tmp_path)), "ray", id="job-1", options={})
    state = read_run(Store(str(tmp_path)))
    assert (state.state, state.stage, state.name) == ("launched", "coca", "demo")


def test_the_runs_below_a_folder_are_listed(ecgchat, tmp_path):
    make_run(tmp_path / "runs" / "a" / "first")
    make_run(tmp_path / "runs" / "second", checkpoints=(3, 9))
    record_launch(LaunchSpec("align", (), "third", str(tmp_path / "runs" / "third")), "slurm", id="7", options={})
    # Neither a run's export nor a model is a run.
    for name in ("second/export/config.json", "llm/config.json", "llm/metrics.jsonl", "report/metrics.jsonl"):
        Store(str(tmp_path / "runs")).put(name, b"{}")
    said = ecgchat("runs", "list", tmp_path / "runs")
    assert (said.status, said.err) == (0, "")
    rows = [line.split() for line in said.out.strip().splitlines()]
    assert [row[:4] for row in rows[1:]] == [
        ["a/first", "coca", "running", "3/9"],
        ["second", "coca", "finished", "3/9"],
        ["third", "align", "launched", "0"],
    ]
    assert "2.0000" in rows[1]


def test_one_run_is_shown_with_what_happened_and_how_it_goes_on(ecgchat, tmp_path):
    store = make_run(tmp_path / "run", lines=(*ATTEMPTS, *STEPS, STOPPED), failure={**FAILED, "followed_by": "a2"})
    record_launch(LaunchSpec("coca", ("--config", "x.yaml"), "demo", store.uri), "ray", id="job-1", options={})
    said = ecgchat("runs", "show", tmp_path / "run")
    for piece in (
        "coca demo: stopped, 3/9 steps",
        "asked to stop after step 3 (SIGTERM)",
        "checkpoints at step 3",
        "job-1",
        "the disk of this rank is gone",
        f"'ecgchat runs resume {store.uri}' goes on from step 3",
    ):
        assert piece in said.text


@pytest.mark.parametrize("word", ["list", "show", "stop", "resume"])
def test_a_folder_without_a_run_is_one_sentence(ecgchat, tmp_path, word):
    # As a model's folder has it.
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    said = ecgchat("runs", word, tmp_path)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"ecgchat: file://{tmp_path}: ")
    assert "Traceback" not in said.err


def test_a_run_at_work_is_not_resumed(ecgchat, tmp_path):
    make_run(tmp_path / "run")
    said = ecgchat("runs", "resume", tmp_path / "run")
    assert said.status == 2
    assert "runs stop" in said.err
    assert "--anyway" in said.err


def test_what_has_ended_is_not_asked_to_stop(ecgchat, tmp_path):
    make_run(tmp_path / "run", checkpoints=(3, 9))
    said = ecgchat("runs", "stop", tmp_path / "run")
    assert (said.status, said.err) == (0, "")
    assert "finished already" in said.text
    assert not (tmp_path / "run" / "stop.json").exists()


def test_a_run_that_does_not_end_is_said_to_be_so_with_what_ends_it(ecgchat, tmp_path):
    store = make_run(tmp_path / "run")
    record_launch(LaunchSpec("coca", (), "demo", store.uri), "ray", id="job-1", options={"address": "http://head:8265"})
    said = ecgchat("runs", "stop", tmp_path / "run", "--limit", 0.5)
    assert said.status == 2
    assert "ray job stop --address http://head:8265 job-1" in said.err
    assert json.loads(store.get("stop.json"))["reason"] == "ecgchat runs stop"


@pytest.mark.slow
def test_a_run_is_stopped_resumed_and_stopped_again_from_outside(simulated_shards, tokenizer_folder, tmp_path):
    settings = coca_settings(simulated_shards, tokenizer_folder, tmp_path / "run")
    settings["train"] |= {"steps": 100000, "eval_every": 50000, "checkpoint": {"every_steps": 50}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(settings))
    first = stopped_from_outside(tmp_path, "train", "coca", "--config", str(tmp_path / "job.yaml"))
    second = stopped_from_outside(tmp_path, "runs", "resume", str(tmp_path / "run"))
    assert 0 < first < second
    resumed = [attempt["resumed_from"] for attempt in metrics.attempts(tmp_path / "run" / metrics.FILE)]
    assert resumed == [0, first]


def stopped_from_outside(folder, *words):
    """The step that a run was committed at, which a command began and another one stopped."""
    before = newest(folder / "run")
    ecgchat = [sys.executable, "-m", "jobs.cli"]
    with (folder / "log").open("a") as log:
        running = subprocess.Popen([*ecgchat, *words], cwd=PROJECT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while newest(folder / "run") == before:
            assert running.poll() is None, (folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        done = subprocess.run(
            [*ecgchat, "runs", "stop", str(folder / "run")],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "stopped, committed step" in done.stdout
        assert running.wait(120) == STOPPED_STATUS, (folder / "log").read_text()[-3000:]
    finally:
        running.kill()
        running.wait()
    return newest(folder / "run")


def newest(run):
    markers = committed(Store(str(run)).child("checkpoints")) if run.exists() else []
    return markers[-1].step if markers else 0
