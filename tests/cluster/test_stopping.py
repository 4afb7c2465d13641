"""Whoever asks a run to stop gets a committed checkpoint, status 75, and a run that goes on as if nothing had been."""

import signal
import time

import pytest

from cluster import metrics
from cluster.markers import committed
from cluster.stopping import INTERRUPTED_STATUS, SAME_INTERRUPT_S, STOPPED_STATUS, request_stop
from shards.storage import Store
from tests.cluster.asked_stage import MOMENT
from tests.cluster.small_stage import WAIT_BEFORE, WAITING
from tests.cluster.states import assert_equal, final_state
from tests.cluster.test_order_survives import GLOBAL_BATCH, begun, noted, small_job, the_sentence_of_all, words
from tests.shards.small_sets import build_small_set

pytestmark = pytest.mark.slow

ASKED = "tests.cluster.asked_stage:asked"
STEPS = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return build_small_set(tmp_path_factory.mktemp("shards") / "set", 6 * GLOBAL_BATCH, 8)


def job(shards, run, epochs=2, **settings):
    """Six steps an epoch, a checkpoint after every third."""
    return small_job(shards, run, epochs=epochs, zero_stage=2, **settings)


def ended(settings, folder, worker=ASKED, **environment):
    with begun(2, settings, folder, worker, **environment) as ranks:
        return ranks.wait()


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    """A run that nobody asked anything, with its state and its steps."""
    folder = tmp_path_factory.mktemp("undisturbed")
    said = ended(job(shards, folder / "run", eval_every=4), folder / "attempt")
    assert [rank.status for rank in said] == [0, 0], said
    return final_state(Store(str(folder / "run")), folder / "state", STEPS), noted(folder / "attempt", 2), lines(folder / "run")


def lines(run):
    """What was learnt, by step."""
    return [
        {name: value for name, value in line.items() if name == "step" or name.startswith(("train/", "eval/"))}
        for line in metrics.read(run / metrics.FILE)
    ]


def stopped(said, run, reason):
    """The step that all ranks stopped at, for one reason, with everything committed."""
    assert [rank.status for rank in said] == [STOPPED_STATUS] * 2, said
    [event] = [event for event in metrics.events(run / metrics.FILE) if event["event"] == "stopped"]
    assert event["said"] == f"small: asked to stop after step {steps(run)[-1]} ({reason})"
    assert "Traceback" not in said[0].err + said[1].err
    return steps(run)[-1]


def steps(run):
    return [marker.step for marker in committed(Store(str(run)).child("checkpoints"))]


@pytest.mark.parametrize("moment", ["validation", "save", "upload", "a step"])
def test_a_run_that_was_stopped_at_any_moment_goes_on_as_if_it_had_not_been(moment, shards, undisturbed, tmp_path):
    settings = job(shards, tmp_path / "run", eval_every=4)
    said = ended(settings, tmp_path / "first", **{MOMENT: moment})
    step = stopped(said, tmp_path / "run", "SIGUSR1")
    assert step < STEPS
    assert max(noted(tmp_path / "first", 2)) == step, "no step is done that is not committed"

    assert [rank.status for rank in ended(settings, tmp_path / "second")] == [0, 0]
    state, used, learnt = undisturbed
    assert_equal(final_state(Store(str(tmp_path / "run")), tmp_path / "state", STEPS), state, moment)
    assert noted(tmp_path / "first", 2) | noted(tmp_path / "second", 2) == used
    assert not noted(tmp_path / "first", 2).keys() & noted(tmp_path / "second", 2).keys(), "no step is done twice"
    assert lines(tmp_path / "run") == learnt


def test_a_file_in_the_runs_folder_stops_it_but_not_one_that_lay_there_before(shards, tmp_path):
    run = Store(str(tmp_path / "run"))
    request_stop(run, "an earlier attempt")
    with begun(2, job(shards, run.uri, epochs=100), tmp_path / "attempt") as ranks:
        ranks.run_until(lambda: steps(tmp_path / "run") != [])
        request_stop(run, "its owner")
        said = ranks.wait()
    assert stopped(said, tmp_path / "run", "its owner") >= 3


def test_a_run_that_is_stopped_before_its_first_step_leaves_nothing_and_begins_again(shards, tmp_path):
    settings = job(shards, tmp_path / "run")
    with begun(2, settings, tmp_path / "attempt") as ranks:
        ranks.send(signal.SIGTERM, rank=0)
        said = ranks.wait()
    assert [rank.status for rank in said] == [STOPPED_STATUS] * 2, said
    assert "asked to stop after step 0 (SIGTERM)" in said[0].out
    assert steps(tmp_path / "run") == []


def test_a_second_interrupt_ends_a_process_at_once(shards, tmp_path):
    """Here, while a step hangs."""
    with begun(1, job(shards, tmp_path / "run"), tmp_path / "attempt", **{WAIT_BEFORE: "4"}) as ranks:
        ranks.run_until((tmp_path / "attempt" / WAITING).exists)
        ranks.send(signal.SIGINT, rank=0)
        time.sleep(1.5 * SAME_INTERRUPT_S)
        ranks.send(signal.SIGINT, rank=0)
        [said] = ranks.wait()
    assert said.status == INTERRUPTED_STATUS
    assert said.err.splitlines()[-1] == "ecgchat: interrupted again; ended at once"


def test_a_second_interrupt_ends_a_process_that_waits_for_another(shards, tmp_path):
    """In a collective no Python runs."""
    with begun(2, job(shards, tmp_path / "run", epochs=100), tmp_path / "attempt") as ranks:
        ranks.run_until(lambda: "step 2/" in ranks.said()[0].out)
        ranks.send(signal.SIGSTOP, rank=1)
        for _ in range(2):
            time.sleep(1.5 * SAME_INTERRUPT_S)
            ranks.send(signal.SIGINT, rank=0)
        assert ranks.wait(but=[1])[0].status == INTERRUPTED_STATUS


def test_an_upload_that_fails_in_the_background_ends_all_ranks_at_the_same_step_with_one_sentence(shards, tmp_path):
    said = ended(job(shards, tmp_path / "run", epochs=100), tmp_path / "attempt", "tests.cluster.asked_stage:refused")
    sentence = the_sentence_of_all(said)
    assert sentence.endswith(": no space left; make room")
    assert steps(tmp_path / "run") == [3]
    assert len({words(tmp_path / "attempt" / f"rank-{rank}.jsonl").count("step") for rank in range(2)}) == 1


def test_checkpoints_by_the_clock_are_of_the_same_step_on_all_ranks(shards, tmp_path):
    settings = job(shards, tmp_path / "run", epochs=4)
    settings["train"]["checkpoint"] = {"every_steps": 1000, "every_minutes": 0.005, "keep_last": 100}
    assert [rank.status for rank in ended(settings, tmp_path / "attempt")] == [0, 0]
    assert len(steps(tmp_path / "run")) > 2
