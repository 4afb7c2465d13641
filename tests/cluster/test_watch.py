"""A run that stands still is found, the rank that the others wait for is named, and nothing is taken for one that is not."""

import json
import signal
import time
from dataclasses import asdict, replace

import pytest
import torch

from cluster import failure, metrics
from cluster.errors import RunError
from cluster.events import Events
from cluster.pace import slow_rank
from cluster.progress import here
from cluster.silence import Report, silent_ranks, verdict
from cluster.watch import HUNG_STATUS, Watch, WatchConfig
from cluster.world import World
from shards.storage import Store
from tests.cluster.small_stage import TROUBLE
from tests.cluster.test_order_survives import GLOBAL_BATCH, begun, small_job
from tests.shards.small_sets import build_small_set

HANG_S = 6


def watched_job(tmp_path, epochs=2.0, **watch):
    """A run of six steps an epoch."""
    shards = tmp_path / "set"
    if not shards.exists():
        build_small_set(shards, 6 * GLOBAL_BATCH, 8)
    job = small_job(str(shards), tmp_path / "run", epochs=epochs)
    job["train"]["watch"] = {"hang_s": HANG_S, **watch}
    return job


def hung(tmp_path, world_size, leaving=(), **trouble):
    """How the ranks of a run end in which one hangs, but for those that never do; and what the run's folder says of it."""
    job = watched_job(tmp_path)
    with begun(world_size, job, tmp_path / "attempt", **{TROUBLE: json.dumps(trouble)}) as ranks:
        ended = ranks.wait(leaving)
    return ended, failure.read(Store(str(tmp_path / "run")))


def lines_with(ended, words):
    return [line for rank in ended for line in (rank.out + rank.err).splitlines() if words in line]


@pytest.mark.slow
def test_a_rank_in_an_endless_loop_is_named_with_its_line_and_the_run_goes_on_when_started_again(tmp_path):
    ended, found = hung(tmp_path, 2, rank=0, step=5, what="endless")
    assert HUNG_STATUS in [rank.status for rank in ended]
    assert 0 not in [rank.status for rank in ended]
    [said] = lines_with(ended, "stands still")
    assert "rank 0 on " in said
    assert " in step 5, data, at small_stage.py:" in said
    assert "while 1 other rank waits for it" in said
    assert (found.rank, found.step, found.cause) == (0, 5, "silent_rank")
    trace = Store(str(tmp_path / "run")).get(failure.trace_name(found.attempt, 0)).decode()
    assert "in step_data" in trace
    [event] = metrics.events(tmp_path / "run" / metrics.FILE)
    assert event["event"] == "silent_rank"

    with begun(2, watched_job(tmp_path), tmp_path / "again") as ranks:
        ended = ranks.wait()
    assert [rank.status for rank in ended] == [0, 0], ended
    assert lines_with(ended, "resumed from committed step 3")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_whose_process_is_stopped_is_named_by_another(tmp_path, rank):
    ended, found = hung(tmp_path, 3, leaving=[rank], rank=rank, step=5, what="stop")
    assert HUNG_STATUS in [one.status for one in ended]
    [said] = lines_with(ended, "does not answer")
    assert f"rank {rank} on " in said
    assert "does not answer in step 5 while 2 other ranks wait for it" in said
    assert (found.rank, found.step, found.cause) == (rank, 5, "silent_rank")


@pytest.mark.slow
def test_a_first_step_that_compiles_for_longer_than_a_hang_is_none(tmp_path):
    job = watched_job(tmp_path)
    with begun(2, job, tmp_path / "attempt", **{TROUBLE: json.dumps({"rank": 1, "step": 1, "what": "compile"})}) as ranks:
        ended = ranks.wait()
    assert [rank.status for rank in ended] == [0, 0], ended
    assert failure.read(Store(str(tmp_path / "run"))) is None
    assert not (tmp_path / "run" / "watch").exists() or not list((tmp_path / "run" / "watch").rglob("*.json"))


@pytest.mark.slow
def test_a_run_that_was_suspended_as_a_whole_is_not_hung(tmp_path):
    """As by 'scontrol suspend'."""
    with begun(2, watched_job(tmp_path, epochs=5.0), tmp_path / "attempt") as ranks:
        ranks.run_until(lambda: "step 4/" in ranks.said()[0].out)
        ranks.send_all(signal.SIGSTOP)
        time.sleep(2 * HANG_S)
        ranks.send_all(signal.SIGCONT)
        ended = ranks.wait()
    assert [rank.status for rank in ended] == [0, 0], ended


@pytest.mark.slow
def test_a_slow_rank_is_named_with_what_it_is_slow_in(tmp_path):
    trouble = {"rank": 1, "what": "slow data", "seconds": 0.3}
    with begun(2, watched_job(tmp_path, window=4), tmp_path / "attempt", **{TROUBLE: json.dumps(trouble)}) as ranks:
        ended = ranks.wait()
    assert [rank.status for rank in ended] == [0, 0], ended
    said = [event for event in metrics.events(tmp_path / "run" / metrics.FILE) if event["event"] == "slow_rank"]
    assert said
    assert all("rank 1 on " in event["said"] and "mostly in data" in event["said"] for event in said)


@pytest.mark.slow
def test_one_rank_that_waits_for_data_is_told_once_what_to_change(tmp_path):
    trouble = {"rank": 0, "what": "slow data", "seconds": 0.3}
    with begun(1, watched_job(tmp_path, window=4), tmp_path / "attempt", **{TROUBLE: json.dumps(trouble)}) as ranks:
        ended = ranks.wait()
    assert [rank.status for rank in ended] == [0], ended
    [event] = metrics.events(tmp_path / "run" / metrics.FILE)
    assert event["event"] == "starved"
    assert "data.loader.connections (8)" in event["said"]


def report(rank, count, waits=False, **changed):
    """Of a rank that stands still."""
    return replace(Report(rank, "h", 7, "forward", count, 10.0, True, waits, "model.py:3 in forward", ""), **changed)


def reports(*given):
    return {one.rank: one for one in given}


@pytest.mark.parametrize("answers", [True, False], ids=["goes on", "does not answer"])
def test_a_rank_that_goes_on_while_another_waits_for_it_is_not_blamed(answers, tmp_path, monkeypatch):
    """It has more to do than the others, and each part of it takes a while."""
    ended = []
    monkeypatch.setattr(Watch, "_end", lambda self: ended.append(self))
    run = Store(str(tmp_path / "run"))
    waiting = World(0, 2, torch.device("cpu"), "a")
    watch = Watch(WatchConfig(hang_s=8), run, waiting, Events(run, tmp_path, waiting), tmp_path, commit_timeout_s=0)
    here.begin()
    for step in (1, 2):
        here.enter("backward", step)
        watch._finished.add("backward")
        watch._look(0.5)
    for _ in range(40):
        watch._look(0.5)
        if answers and run.exists("watch/a/question.json"):
            answer = replace(report(1, here.count - 1), over=False)
            run.put("watch/a/rank-00001.json", json.dumps(asdict(answer)).encode())
    assert bool(ended) != answers


def test_the_rank_that_is_behind_is_the_silent_one():
    assert silent_ranks(reports(report(0, 9), report(1, 8), report(2, 9)), 3) == [1]


def test_a_rank_without_a_report_does_not_answer():
    assert silent_ranks(reports(report(0, 9), report(2, 9)), 3) == [1]


def test_of_ranks_in_the_same_phase_the_one_that_waits_for_nobody_is_silent():
    assert silent_ranks(reports(report(0, 9, waits=True), report(1, 9), report(2, 9, waits=True)), 3) == [1]


def test_where_all_wait_for_one_another_none_is_blamed():
    found = reports(report(0, 9, waits=True), report(1, 9, waits=True))
    assert silent_ranks(found, 2) == []
    assert "none is behind" in verdict(found, [], 2, 10.0)


def test_a_rank_alone_is_the_silent_one():
    here.begin()
    found = reports(report(0, 9))
    assert silent_ranks(found, 1) == [0]
    assert verdict(found, [0], 1, 10.0) == "rank 0 stands still for 10 s in step 7, forward, at model.py:3 in forward"


@pytest.mark.parametrize(
    ("seconds", "named"),
    [
        ([1.0], None),
        ([1.0, 1.2], None),
        ([1.0, 2.0], 1),
        ([1.0, 1.0, 1.0, 1.6], 3),
        # Twice a very little delays nobody.
        ([0.001, 0.002], None),
    ],
    ids=["one rank", "two alike", "two, one slow", "one of four", "all fast"],
)
def test_a_slow_rank_is_one_that_delays_the_others_noticeably(seconds, named):
    assert slow_rank(seconds, step_s=2.0, factor=1.5) == named


@pytest.mark.parametrize("setting", [{"hang_s": -1}, {"hang_s": 1e6}, {"slow_factor": 0.5}, {"window": 0}])
def test_settings_without_sense_are_refused(setting):
    with pytest.raises(RunError, match=f"train.watch.{next(iter(setting))}"):
        WatchConfig(**setting)
