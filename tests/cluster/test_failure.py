"""The first cause of a failure reaches the user once; what follows from it is silent."""

import json
from pathlib import Path

import pytest
import torch

from cluster import failure, metrics
from cluster.memory_advice import memory_sentence, out_of_memory
from cluster.progress import here
from shards.storage import Store
from tests.cluster.small_stage import TROUBLE
from tests.cluster.test_order_survives import GLOBAL_BATCH, begun, small_job
from tests.shards.small_sets import build_small_set


def attempt_at(tmp_path, world_size, folder="attempt", environment=None, **trouble):
    """How the ranks of a run end where one of them has trouble, and what the run's folder says of it then."""
    shards = tmp_path / "set"
    if not shards.exists():
        build_small_set(shards, 6 * GLOBAL_BATCH, 8)
    variables = {TROUBLE: json.dumps(trouble), **(environment or {})}
    with begun(world_size, small_job(str(shards), tmp_path / "run"), tmp_path / folder, **variables) as ranks:
        ended = ranks.wait()
    return ended, failure.read(Store(str(tmp_path / "run")))


def sentences(ended):
    """What all ranks together say on standard error."""
    return [line for rank in ended for line in rank.err.splitlines()]


@pytest.mark.slow
def test_the_first_rank_that_fails_says_why_and_the_others_are_silent(tmp_path):
    ended, found = attempt_at(tmp_path, 3, rank=1, step=3, what="error")
    [said] = sentences(ended)
    assert [rank.status for rank in ended] == [1, 1, 1]
    assert said.startswith("ecgchat: rank 1 on ")
    assert ", step 3, forward: KeyError: 'report'; its trace: file://" in said
    assert (found.rank, found.step, found.cause) == (1, 3, "error")
    trace = Path(found.trace.removeprefix("file://")).read_text()
    assert "in terms" in trace
    assert "KeyError: 'report'" in trace


@pytest.mark.slow
def test_a_rank_that_is_killed_without_a_word_is_named_by_the_others(tmp_path):
    ended, found = attempt_at(tmp_path, 3, rank=1, step=3, what="kill")
    [said] = sentences(ended)
    assert [rank.status for rank in ended] == [1, -9, 1]
    assert "rank 1 on " in said
    assert "ended without a word, step 3" in said
    assert (found.rank, found.cause) == (1, "lost_rank")


@pytest.mark.slow
def test_the_loss_of_rank_0_is_named_too(tmp_path):
    """It keeps what the ranks use to find out who was first."""
    ended, found = attempt_at(tmp_path, 3, rank=0, step=3, what="kill")
    [said] = sentences(ended)
    assert "rank 0 on " in said
    assert (found.rank, found.cause) == (0, "lost_rank")


@pytest.mark.slow
def test_an_error_that_all_ranks_meet_is_said_by_one(tmp_path):
    ended, found = attempt_at(tmp_path, 3, rank=2, step=3, what="bad data")
    assert [rank.status for rank in ended] == [2, 2, 2]
    assert sentences(ended) == [f"ecgchat: {found.said}"]


@pytest.mark.slow
def test_the_next_attempt_says_what_ended_the_one_before(tmp_path):
    attempt_at(tmp_path, 2, rank=1, step=5, what="error")
    ended, found = attempt_at(tmp_path, 2, "second")
    assert [rank.status for rank in ended] == [0, 0], ended
    [line] = [line for line in ended[0].out.splitlines() if "resumed from committed step 3" in line]
    assert "KeyError: 'report'" in line
    [event] = metrics.events(tmp_path / "run" / metrics.FILE)
    assert (event["event"], event["step"]) == ("resumed", 3)
    assert found.followed_by == event["attempt"]


@pytest.mark.slow
def test_memory_that_runs_out_twice_at_one_step_is_final(tmp_path):
    launch = {"TORCHELASTIC_RUN_ID": "one"}
    first, found = attempt_at(tmp_path, 2, "first", launch, rank=1, step=3, what="memory")
    assert [rank.status for rank in first] == [1, 1]
    assert not found.final
    second, found = attempt_at(tmp_path, 2, "second", launch, rank=1, step=3, what="memory")
    assert [rank.status for rank in second] == [2, 2]
    assert found.final
    for ended in (first, second):
        [said] = sentences(ended)
        assert "step 3, forward: out of memory; " in said
        assert "train.engine.gradient_accumulation (1)" in said


@pytest.mark.parametrize(
    ("phase", "setting"), [("forward", "gradient_accumulation (1)"), ("optimizer", "zero_stage (1)"), ("data", "ahead (3)")]
)
def test_the_advice_fits_where_memory_ran_out(phase, setting):
    settings = {"data": {"loader": {"order": {"global_batch": 64}}}, "train": {"engine": {"zero_stage": 1}}}
    here.begin()
    here.enter(phase, step=3)
    assert setting in memory_sentence("rank 1", settings, 4)


def test_memory_of_the_host_and_of_the_device_are_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("shape '[2]' is invalid"))


def test_a_full_disk_is_said_with_what_to_do():
    with pytest.raises(OSError, match="No space left") as caught:
        Path("/dev/full").write_text("x")
    said = failure.in_words(caught.value)
    assert said.startswith("[Errno 28] No space left on device; make room, or set TMPDIR (now ")
