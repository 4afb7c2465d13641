"""Whatever happens to workers, stores and W&B: `metrics.jsonl` has every number, and one clean W&B run can be made of it."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest

from cluster import metrics, tracking, wandb_run
from cluster.errors import RunError
from cluster.mirror import Mirror
from cluster.stage import Picture
from cluster.sync import rebuild
from cluster.tracking import Tracker, TrackingConfig, origin
from jobs.runs import sync
from shards.draw import draw_ecg
from shards.storage import StorageError, Store
from tests.cluster import wandb_file

CONFIG = {"stage": "small", "run": {"run": {"name": "demo"}}, "data": {"index_sha256": "abc"}}


@pytest.fixture
def run(tmp_path):
    return Store(str(tmp_path / "run"))


def attempt(run, tmp_path, steps, resumed_from=0, name="first", mode="offline", **how):
    """An attempt at a run that has done some steps and not ended."""
    local = tmp_path / name
    local.mkdir()
    config = TrackingConfig(wandb=mode, group="pipeline", tags=["night"], **how)
    tracker = Tracker(run, config, "demo", "small", name, resumed_from, CONFIG, local)
    run.put("config.json", json.dumps(CONFIG).encode())
    for step in steps:
        tracker.log([line(step, name)])
    return tracker


def line(step, name="first"):
    return {"step": step, "samples": 4 * step, "train/loss": float(step) if name == "first" else 100.0 + step, "perf/mfu": 0.5}


def losses(body):
    return [(row["samples"], row["train/loss"]) for row in wandb_file.history(body) if "train/loss" in row]


def wandb_files(run):
    return [run.get(name) for name in run.list("wandb") if name.endswith(".wandb")]


def truth(run, tmp_path):
    run.download(metrics.FILE, tmp_path / "truth")
    return [(row["samples"], row["train/loss"]) for row in metrics.read(tmp_path / "truth") if "train/loss" in row]


# --- the end of a run


def test_the_offline_run_holds_every_step_once_whatever_was_done_twice(run, tmp_path):
    attempt(run, tmp_path, range(1, 8)).upload()
    attempt(run, tmp_path, range(5, 10), resumed_from=4, name="second").close()
    [body] = wandb_files(run)
    expected = [(4 * step, line(step, "first" if step <= 4 else "second")["train/loss"]) for step in range(1, 10)]
    assert losses(body) == truth(run, tmp_path) == expected


def test_the_run_is_named_by_the_contract(run, tmp_path):
    attempt(run, tmp_path, [1]).close()
    [body] = wandb_files(run)
    record = wandb_file.run_record(body)
    assert (record.project, record.run_group, record.job_type) == ("ecgchat", "pipeline", "small")
    assert record.display_name == "demo-small"
    assert list(record.tags) == ["small", "night"]
    assert record.run_id == json.loads(run.get("wandb_run.json"))["id"]
    assert wandb_file.config(body)["data"] == {"index_sha256": "abc"}


def test_pictures_are_kept_and_stand_in_the_run_once(run, tmp_path):
    png = draw_ecg(np.zeros((12, 100), np.int16), [0.001] * 12, 100, dpi=20)
    tracker = attempt(run, tmp_path, [1])
    tracker.show([Picture("a", png, "sinus rhythm")])
    tracker.close()
    [body] = wandb_files(run)
    [shown] = [row["data/examples"] for row in wandb_file.history(body) if "data/examples" in row]
    assert shown["captions"] == ["a: sinus rhythm"]
    [name] = shown["filenames"]
    assert [run.get(file) for file in run.list("wandb") if file.endswith(name)] == [png], "the run needs no other folder"
    assert json.loads(run.get("pictures/pictures.json")) == [{"name": "a", "file": "0.png", "text": "sinus rhythm"}]


def test_where_a_run_comes_from(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    found = origin()
    assert found["slurm_job_id"] == "4711"
    assert "ray_submission_id" not in found
    assert len(found.get("git_revision", "0" * 40).removesuffix("-dirty")) == 40


@pytest.mark.parametrize(
    ("asked", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "key"}, "online"),
        ({"WANDB_API_KEY": "key", "WANDB_MODE": "online"}, "online"),
        ({"WANDB_API_KEY": "key", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": "key", "WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_the_environment_says_where_a_run_is_followed_unless_the_settings_do(monkeypatch, asked, mode):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    assert TrackingConfig().mode == mode
    assert TrackingConfig(wandb="online").mode == "online"


# --- W&B that cannot be had


def test_wandb_that_cannot_be_reached_stops_nothing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb_run, "START_TIMEOUT_S", 1)
    attempt(run, tmp_path, [1, 2], mode="auto").close()
    said = capsys.readouterr()
    assert said.out.count("W&B cannot be started (CommError: ") == 1
    assert f"'ecgchat runs sync {run.uri}'" in said.out
    assert "0123456789" not in said.out + said.err
    [body] = wandb_files(run)
    assert losses(body) == [(4, 1.0), (8, 2.0)]


class Failing:
    """W&B that is there, and is lost with the third step."""

    def __init__(self, *_):
        self.logged = []

    def show(self, *_):
        pass

    def log(self, lines):
        self.logged += lines
        if len(self.logged) == 3:
            raise ConnectionResetError("Connection lost")
        assert len(self.logged) < 3, "what failed is left alone"


def test_wandb_that_fails_in_the_middle_stops_nothing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "OnlineRun", Failing)
    attempt(run, tmp_path, range(1, 7), mode="online").close()
    assert capsys.readouterr().out.count("W&B fails (ConnectionResetError: Connection lost)") == 1
    assert len(truth(run, tmp_path)) == 6
    assert losses(synced(run, tmp_path)) == truth(run, tmp_path)


# --- the copy of metrics.jsonl


def test_the_copy_in_the_store_is_fresh_between_commits(run, tmp_path):
    file = tmp_path / metrics.FILE
    metrics.append(file, [line(1)])
    mirror = Mirror(file, run, metrics.FILE, every_s=0.01)
    with file.open("a") as opened:
        opened.write('{"step": 2, "tr')
    reached(lambda: run.exists(metrics.FILE))
    assert run.get(metrics.FILE).decode() == json.dumps(line(1)) + "\n"
    mirror.close()


def test_once_an_attempt_has_ended_nothing_is_copied_beside_it(run, tmp_path, capsys):
    file = tmp_path / metrics.FILE
    metrics.append(file, [line(1)])
    mirror = Mirror(file, run, metrics.FILE, every_s=0.01)
    mirror.end()
    file.unlink()
    mirror.close()
    assert "is not fresh" not in capsys.readouterr().out


def test_a_store_that_fails_is_said_once_and_tried_again(run, tmp_path, monkeypatch, capsys):
    file = tmp_path / metrics.FILE
    metrics.append(file, [line(1)])
    tries = []

    def put(name, body):
        tries.append(name)
        if len(tries) < 4:
            raise StorageError("the store is away")
        Store.put(run, name, body)

    monkeypatch.setattr(run, "put", put)
    mirror = Mirror(file, run, metrics.FILE, every_s=0.01)
    reached(lambda: run.exists(metrics.FILE))
    mirror.close()
    assert capsys.readouterr().out.count("the store is away; training goes on") == 1


def reached(condition):
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not within a minute")


# --- ecgchat runs sync


def synced(run, tmp_path):
    """The offline run that `runs sync` makes."""
    rebuild(run, tmp_path / "out")
    [file] = (tmp_path / "out").rglob("*.wandb")
    return file.read_bytes()


def test_killed_attempts_become_one_clean_run(run, tmp_path):
    """The first was killed while it wrote, the second has no end either; W&B's folder and name are gone."""
    attempt(run, tmp_path, range(1, 8)).upload()
    run.put(metrics.FILE, run.get(metrics.FILE) + b'{"attempt": "first", "st')
    attempt(run, tmp_path, range(5, 10), resumed_from=4, name="second").upload()
    run.put(metrics.FILE, run.get(metrics.FILE) + b'{"event": "slow_rank", "step": 9, "attempt": "b", "said": "slow"}\n')
    run.delete("wandb_run.json")
    said = rebuild(run, tmp_path / "out")
    assert "9 steps of 2 attempts, 1 events beside them; 1 lines that were cut short are left out" in said
    body = synced(run, tmp_path)
    assert losses(body) == truth(run, tmp_path)
    assert len(losses(body)) == 9
    assert wandb_file.run_record(body).run_id == json.loads(run.get("wandb_run.json"))["id"]


def options(run, *words):
    import argparse

    parser = argparse.ArgumentParser()
    sync.add_options(parser, "sync")
    return parser.parse_args([run.uri, *words])


def test_it_takes_the_place_of_what_lay_in_the_runs_folder(run, tmp_path):
    attempt(run, tmp_path, [1, 2]).close()
    run.put("wandb/offline-run-half/run.wandb", b"half")
    assert sync.run("sync", options(run)) == 0
    assert [losses(body) for body in wandb_files(run)] == [[(4, 1.0), (8, 2.0)]]


def test_what_lies_in_a_folder_is_left_alone(run, tmp_path):
    attempt(run, tmp_path, [1]).upload()
    kept = tmp_path / "home" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(RunError, match=r"--out .*home: expected a folder that is absent or empty"):
        sync.run("sync", options(run, "--out", str(kept.parent)))
    assert kept.read_text() == "mine"


def test_what_wandb_refuses_is_one_sentence(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    attempt(run, tmp_path, [1]).upload()
    with pytest.raises(RunError, match="'wandb sync' did not take .* set WANDB_API_KEY"):
        sync.run("sync", options(run, "--online", "--out", str(tmp_path / "out")))


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"no metrics.jsonl in it; name the folder of a run"):
        rebuild(Store(str(tmp_path / "none")), tmp_path / "out")
