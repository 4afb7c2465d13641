"""What happens to a run is said once, by rank 0, and stands in its record beside the numbers."""

import torch

from cluster import metrics
from cluster.events import Events
from cluster.world import World
from shards.storage import StorageError, Store


def world(rank):
    return World(rank, 2, torch.device("cpu"), "a")


def test_an_event_is_said_once_and_recorded_among_the_numbers(tmp_path, capsys):
    file = tmp_path / metrics.FILE
    metrics.append(file, [{"attempt": "a", "resumed_from": 0}, {"attempt": "a", "step": 1, "train/loss": 1.0}])
    for rank in (1, 0):
        Events(Store(str(tmp_path / "run")), tmp_path, world(rank)).say("slow_rank", "rank 1 is slow", step=1)
    assert capsys.readouterr().out.count("rank 1 is slow") == 1
    assert metrics.events(file) == [{"event": "slow_rank", "step": 1, "attempt": "a", "said": "rank 1 is slow"}]
    assert metrics.read(file) == [{"attempt": "a", "step": 1, "train/loss": 1.0}]


def test_what_is_said_before_there_is_a_record_is_not_lost(tmp_path):
    file = tmp_path / metrics.FILE
    run = Store(str(tmp_path / "run"))
    events = Events(run, tmp_path, world(0))
    events.say("resumed", "from committed step 5")
    assert not file.exists()
    metrics.append(file, [{"attempt": "a", "resumed_from": 0}])
    events.write()
    events.write()
    assert [line["event"] for line in metrics.events(file)] == ["resumed"]
    events.upload()
    assert run.get(metrics.FILE) == file.read_bytes()


def test_a_store_that_fails_hides_no_reason_for_the_end(tmp_path, monkeypatch):
    run = Store(str(tmp_path / "run"))
    metrics.append(tmp_path / metrics.FILE, [{"attempt": "a", "resumed_from": 0}])

    def fail(*_):
        raise StorageError("the store is away")

    monkeypatch.setattr(run, "upload", fail)
    Events(run, tmp_path, world(0)).upload()


def test_events_outlive_the_steps_that_a_resumed_attempt_undoes(tmp_path):
    file = tmp_path / metrics.FILE
    metrics.append(file, [{"attempt": "a", "resumed_from": 0}, {"event": "bad_loss", "step": 5, "attempt": "a", "said": "…"}])
    metrics.append(file, [{"attempt": "b", "resumed_from": 2}])
    assert [line["event"] for line in metrics.events(file)] == ["bad_loss"]
