"""A bad loss or gradient changes no weight and no moment, on no rank and under no engine; the policy decides how it goes on."""

import json

import pytest
import torch

from cluster import metrics
from cluster.guard import Guard, GuardConfig
from cluster.markers import committed
from cluster.world import World
from shards.storage import Store
from tests.cluster.bad_stage import BAD
from tests.cluster.test_order_survives import GLOBAL_BATCH, begun, small_job, the_sentence_of_all
from tests.shards.small_sets import build_small_set

ENGINES = [(zero_stage, precision) for zero_stage in range(4) for precision in ("fp32", "bf16")]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return build_small_set(tmp_path_factory.mktemp("shards") / "set", 6 * GLOBAL_BATCH, 8)


def ended(shards, tmp_path, bad, ranks=2, steps=6, save_every=1, engines=((2, "fp32"),), **guard):
    """How ranks end that meet bad steps."""
    settings = small_job(shards, tmp_path / "run") | {"engines": engines}
    settings["train"] |= {"steps": steps, "guard": guard}
    settings["train"]["optimizer"] = {"warmup_steps": 0, "learning_rate": 0.01}
    settings["train"]["checkpoint"] = {"every_steps": save_every, "keep_last": 100}
    with begun(ranks, settings, tmp_path / "notes", "tests.cluster.bad_stage:bad", **{BAD: json.dumps(bad)}) as running:
        return running.wait()


def markers(run):
    return {marker.step: marker for marker in committed(Store(str(run)).child("checkpoints"))}


def tensors(run, step, folder):
    """Weights, master weights and moments of a checkpoint, by where they stand in it."""
    checkpoints, marker = Store(str(run)).child("checkpoints"), markers(run)[step]
    found = {}
    for name in marker.files:
        if name.endswith("_states.pt"):
            checkpoints.download(f"{marker.folder}/{name}", folder / f"{step}" / name)
            flatten(torch.load(folder / f"{step}" / name, weights_only=False), name, found)
    return found


def flatten(value, where, found):
    if isinstance(value, torch.Tensor):
        found[where] = value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in items:
        flatten(part, f"{where}.{key}", found)


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[where], second[where]) for where in first)


def said(run, kind):
    return [(event["step"], event["said"]) for event in metrics.events(run / metrics.FILE) if event["event"] == kind]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_bad_step_leaves_weights_and_moments_as_they_were(ranks, shards, tmp_path):
    over = ended(shards, tmp_path, {3: "gradient", 5: "nan"}, ranks, engines=ENGINES)
    assert [rank.status for rank in over] == [0] * ranks, over
    for zero_stage, precision in ENGINES:
        run = tmp_path / "run" / f"{zero_stage}-{precision}"
        states = {step: tensors(run, step, tmp_path / f"{zero_stage}-{precision}") for step in range(1, 7)}
        assert len(states[2]) > 3
        assert [same(states[step], states[step + 1]) for step in range(1, 6)] == [False, True, False, True, False], run
        assert all(state.isfinite().all() for state in states[6].values())
        assert [step for step, _ in said(run, "bad_loss")] == [3, 5]
        assert "step 3: the gradient of the loss" in said(run, "bad_loss")[0][1]
        assert "step 5: the loss is nan; samples " in said(run, "bad_loss")[1][1]
        assert [line["step"] for line in metrics.read(run / metrics.FILE) if "train/loss" in line] == [1, 2, 3, 4, 6]


@pytest.mark.slow
def test_a_run_rolls_back_to_older_weights_and_goes_on_with_the_data_after_the_bad_step(shards, tmp_path):
    [*over] = ended(shards, tmp_path, {8: "nan"}, steps=12, save_every=3, on_bad_loss="roll_back", roll_back_steps=3)
    assert [rank.status for rank in over] == [0, 0], over
    run = tmp_path / "run" / "2-fp32"
    kept = markers(run)
    assert list(kept) == [3, 6, 8, 9, 12]
    assert same(tensors(run, 3, tmp_path), tensors(run, 8, tmp_path))
    assert [kept[step].content["data"]["batch"] for step in (6, 8)] == [6, 2], "the order goes on"
    assert kept[12].content["guard"]["skipped"] == 5
    assert said(run, "rolled_back") == [(8, "small step 8: goes on from the weights of step 3; steps since taught nothing")]
    learnt = [line["step"] for line in metrics.read(run / metrics.FILE) if "train/loss" in line]
    assert learnt == [1, 2, 3, 9, 10, 11, 12]
    assert len(metrics.attempts(run / metrics.FILE)) == 1


@pytest.mark.slow
def test_a_loss_far_over_the_median_is_bad_where_that_is_asked_for(shards, tmp_path):
    over = ended(shards, tmp_path, {20: "huge"}, steps=22, save_every=19, explode_factor=100)
    assert [rank.status for rank in over] == [0, 0], over
    [(step, sentence)] = said(tmp_path / "run" / "2-fp32", "bad_loss")
    assert step == 20
    assert "is more than 100 times the median" in sentence


@pytest.mark.slow
def test_a_run_stops_at_a_bad_step_or_at_too_many_in_a_row_with_a_sentence(shards, tmp_path):
    for folder in ("stop", "many"):
        (tmp_path / folder).mkdir()
    sentence = the_sentence_of_all(ended(shards, tmp_path / "stop", {3: "nan"}, on_bad_loss="stop"))
    assert sentence.startswith("ecgchat: small step 3: the loss is nan; samples ")
    assert sentence.endswith("; look at them, or set train.guard.on_bad_loss to skip or roll_back")
    sentence = the_sentence_of_all(ended(shards, tmp_path / "many", {2: "nan", 4: "nan", 5: "nan"}, max_bad_steps=1))
    assert sentence.startswith("ecgchat: small step 5: the loss is nan; samples ")
    assert "2 bad steps in a row, more than train.guard.max_bad_steps 1" in sentence


# --- one rank's guard, by itself

ALONE = World(0, 1, torch.device("cpu"), "a")


def step(guard, *losses):
    """A step of micro-batches, and whether its gradient is one."""
    guard.begin()
    parts = [
        guard.guarded(torch.tensor(loss), last) for loss, last in zip(losses, [False] * (len(losses) - 1) + [True], strict=True)
    ]
    return bool(sum(parts).isfinite())


def test_a_good_loss_passes_unchanged():
    guard = Guard(GuardConfig(), ALONE)
    guard.begin()
    assert guard.guarded(torch.tensor(0.1), last=True).item() == torch.tensor(0.1).item()


def test_a_bad_micro_batch_spoils_its_step_and_no_other():
    guard = Guard(GuardConfig(), ALONE)
    assert not step(guard, float("inf"), 1.0)
    assert step(guard, 1.0, 1.0)


def test_what_explodes_is_the_same_after_a_resume(monkeypatch):
    monkeypatch.setattr(World, "sum", lambda self, tensor: tensor)
    guard = Guard(GuardConfig(explode_factor=3), ALONE)
    for number in range(100):
        assert step(guard, 1 + number % 5 / 10)
        guard.accept()
    resumed = Guard(GuardConfig(explode_factor=3), ALONE)
    resumed.restore(json.loads(json.dumps(guard.state())))
    for one in (guard, resumed):
        assert [step(one, loss) for loss in (3.5, 3.7)] == [True, False]
