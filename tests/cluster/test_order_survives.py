"""Which samples a step uses survives kills and other numbers of ranks; and what one rank cannot read, all ranks hear of."""

import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from cluster import metrics
from cluster.markers import MARKER_END
from jobs.coca import CocaJob, CocaStage
from jobs.config import from_settings
from tests.cluster.ranks import Ranks
from tests.cluster.small_stage import NOTES, TROUBLE, WAIT_BEFORE, SmallJob, SmallStage
from tests.settings import small_settings
from tests.shards.reading import expected_keys
from tests.shards.small_sets import build_small_set

pytestmark = pytest.mark.slow

SEED = "ECGCHAT_TEST_SEED"
"""Repeats the kills of a test that failed."""
WORLD_SIZES = [2, 1, 3, 4]
"""Of the attempts at one run."""
STEPS_BETWEEN_CHECKPOINTS = 3
GLOBAL_BATCH = 7
WORKER = "tests.cluster.small_stage:small"


def small_job(shards, run_folder, epochs=1.0, zero_stage=0, tolerated_damage=0, eval_every=1000):
    """Settings in which neither the lanes nor the batch are a multiple of the ranks."""
    order = {"global_batch": GLOBAL_BATCH, "lanes": 3, "block": 5, "seed": 1}
    return {
        "run": {"folder": str(run_folder), "name": "small"},
        "data": {
            "shards": shards,
            "validation_split": "train",
            "loader": {"order": order, "tolerated_damage": tolerated_damage},
        },
        "train": {
            "epochs": epochs,
            "eval_every": eval_every,
            "engine": {"zero_stage": zero_stage, "precision": "fp32"},
            "checkpoint": {"every_steps": STEPS_BETWEEN_CHECKPOINTS},
            "tracking": {"wandb": "disabled", "log_every": 1},
        },
    }


def training_loader(stage):
    """All of each global batch, for one process that only looks at it."""
    return stage.loader(stage.training, stage.data.loader)


def begun(count, settings, folder, worker=WORKER, **environment):
    """Ranks of a job that note in `folder` what they use."""
    folder.mkdir()
    return Ranks(count, worker, settings, folder, **{NOTES: str(folder)}, **environment)


def noted(folder, world_size):
    """Step → keys of its global batch, in the order of the ranks, of the steps that every rank began in an attempt."""
    ranks = []
    for rank in range(world_size):
        notes = [json.loads(line) for line in (folder / f"rank-{rank}.jsonl").read_text().splitlines()]
        steps = [note["step"] for note in notes]
        assert steps == list(range(steps[0], steps[0] + len(steps))), "a step was left out or done twice"
        ranks.append({note["step"]: note["keys"] for note in notes})
    return {step: [key for rank in ranks for key in rank[step]] for step in sorted(set.intersection(*map(set, ranks)))}


def killed(settings, folder, world_size, generator):
    """Begin an attempt and kill it in the middle of a random step, some time after it committed a checkpoint of its own."""
    resumed_from = newest_checkpoint(settings)
    last = resumed_from + STEPS_BETWEEN_CHECKPOINTS + generator.randint(1, 4)
    delay_s = generator.uniform(0, 0.1)
    notes = folder / "rank-0.jsonl"
    with begun(world_size, settings, folder, **{WAIT_BEFORE: str(last + 4)}) as ranks:
        ranks.run_until(lambda: f'"step": {last + 1},' in words(notes) and newest_checkpoint(settings) > resumed_from)
        time.sleep(delay_s)
        ranks.kill()


def words(file):
    """What is in a file, nothing where there is none."""
    return file.read_text() if file.exists() else ""


def newest_checkpoint(settings):
    """Step of the newest that is committed, 0 where there is none."""
    markers = Path(settings["run"]["folder"], "checkpoints").glob(f"*{MARKER_END}")
    return max((int(marker.name.removeprefix("step-").removesuffix(MARKER_END)) for marker in markers), default=0)


@pytest.mark.parametrize("mixture", [False, True], ids=["one data set", "a mixture"])
def test_a_run_that_is_killed_again_and_again_uses_exactly_the_samples_of_one_that_is_not(mixture, tmp_path):
    seed = int(os.environ.get(SEED, random.randrange(10**6)))
    print(f"{SEED}={seed}")
    generator = random.Random(seed)
    shards = build_small_set(tmp_path / "first", 6 * GLOBAL_BATCH, 8, "first")
    settings = small_job(shards, tmp_path / "run", epochs=5, zero_stage=2)
    uses = [5]
    if mixture:
        # A quarter of 56 is 14 of the second set's 28 samples in each epoch.
        second = build_small_set(tmp_path / "second", 4 * GLOBAL_BATCH, 8, "second")
        settings = small_job([{"shards": shards}, {"shards": second, "share": 0.25}], tmp_path / "run", epochs=4)
        uses = [4, 2]
    folders = [tmp_path / f"attempt-{number}" for number in range(len(WORLD_SIZES))]

    for folder, world_size in zip(folders[:-1], WORLD_SIZES[:-1], strict=True):
        killed(settings, folder, world_size, generator)
    with begun(WORLD_SIZES[-1], settings, folders[-1]) as ranks:
        ended = ranks.wait()
    assert [rank.status for rank in ended] == [0] * WORLD_SIZES[-1], ended

    attempts = [noted(folder, world_size) for folder, world_size in zip(folders, WORLD_SIZES, strict=True)]
    firsts = [min(attempt) for attempt in attempts]
    assert firsts == sorted(set(firsts)), "each attempt goes on from a checkpoint of the one before"
    counted = {step: keys for attempt in attempts for step, keys in attempt.items()}
    loader = training_loader(SmallStage(from_settings(SmallJob, settings)))
    steps = int(settings["train"]["epochs"]) * loader.batches
    assert counted == dict(enumerate(expected_keys(loader, steps), start=1))
    assert Counter(key for keys in counted.values() for key in keys) == {
        key: times for part, times in zip(loader.mixture.parts, uses, strict=True) for key in part.index["key"].to_pylist()
    }


def damage(loader, step, rank):
    """Turn the bits of some bytes, on disk, of a sample that one of two ranks meets in a step of the first epoch.

    Returns:
        The name of its shard, and its key.
    """
    size = loader.config.order.global_batch
    row = loader.order.batch_samples(0, step - 1)[(rank * size + size // 2) // 2]
    place = loader.table.place(row)
    with place.store.local_path(place.name).open("r+b") as file:
        file.seek(int(loader.table.offset[row] + loader.table.bytes[row] // 2))
        bits = file.read(8)
        file.seek(-len(bits), os.SEEK_CUR)
        file.write(bytes(255 - byte for byte in bits))
    return place.name, *loader.table.keys([row])


def run_of_two(tmp_path, damaged=(), trouble=None, **settings):
    """How two ranks end where they meet damage at [(step, rank), …]; shards and keys of it; the last step that they began."""
    shards = build_small_set(tmp_path / "set", 6 * GLOBAL_BATCH, 8)
    job = small_job(shards, tmp_path / "run", **settings)
    loader = training_loader(SmallStage(from_settings(SmallJob, job)))
    names = [damage(loader, step, rank) for step, rank in damaged]
    with begun(2, job, tmp_path / "attempt", **{TROUBLE: json.dumps(trouble or {})}) as ranks:
        ended = ranks.wait()
    return ended, names, max(noted(tmp_path / "attempt", 2))


def the_sentence_of_all(ended):
    """What all ranks ended for, as a command ends with an error that is meant for the user: rank 0 says it."""
    assert [rank.status for rank in ended] == [2] * len(ended), ended
    assert not any("ecgchat: " in rank.err for rank in ended[1:])
    return ended[0].err.splitlines()[-1]


def test_damage_that_is_not_tolerated_ends_all_ranks_at_its_step_with_one_sentence(tmp_path):
    ended, [(shard, key)], last_step = run_of_two(tmp_path, damaged=[(3, 1)])
    sentence = the_sentence_of_all(ended)
    assert sentence.startswith("ecgchat: small step 3, rank 1: ")
    assert f"{shard}: the bytes of sample {key} " in sentence
    assert last_step == 2


def test_damage_in_validation_ends_all_ranks_too(tmp_path):
    ended, [(shard, key)], last_step = run_of_two(tmp_path, damaged=[(4, 1)], eval_every=2)
    sentence = the_sentence_of_all(ended)
    assert sentence.startswith("ecgchat: small step 2, rank ")
    assert f"{shard}: the bytes of sample {key} " in sentence
    assert last_step == 2


def test_damage_of_all_ranks_together_that_is_more_than_tolerated_ends_them_at_the_same_step(tmp_path):
    """Neither rank alone meets more than two."""
    ended, names, last_step = run_of_two(tmp_path, damaged=[(2, 0), (3, 1), (4, 0)], tolerated_damage=2)
    sentence = the_sentence_of_all(ended)
    assert sentence.startswith("ecgchat: small step 4: 3 damaged samples, more than data.loader.tolerated_damage 2; ")
    assert f"sample {names[-1][1]} " in sentence
    assert last_step == 3
    for _, key in names[:-1]:
        assert "".join(rank.out for rank in ended).count(f"sample {key} ") == 1


def test_an_error_of_one_rank_that_nobody_foresaw_ends_all_ranks_and_leaves_its_trace(tmp_path):
    ended, _, last_step = run_of_two(tmp_path, trouble={"rank": 1, "step": 3, "what": "bad data"})
    sentence, _, trace = the_sentence_of_all(ended).partition("; its trace: file://")
    assert sentence == "ecgchat: small step 3, rank 1: KeyError: 'report'"
    assert "in step_data" in Path(trace).read_text()
    assert not any("Traceback" in rank.err for rank in ended)
    assert last_step == 2


def test_a_run_without_a_damaged_sample_has_the_same_figures_on_one_rank_and_on_two(
    simulated_shards, tokenizer_folder, tmp_path
):
    """Two epochs with contrastive batches: what is met twice counts once, and is said once."""
    shards = shutil.copytree(simulated_shards, tmp_path / "shards")
    job = small_settings(str(shards), tokenizer_folder, tmp_path / "run")
    job["data"]["loader"]["tolerated_damage"] = 1
    job["train"]["tracking"]["wandb"] = "disabled"
    loader = training_loader(CocaStage(from_settings(CocaJob, job)))
    job["train"] |= {"steps": 2 * loader.batches, "eval_every": loader.batches}
    _, key = damage(loader, step=2, rank=1)
    lines = {}
    for world_size in (1, 2):
        job["run"]["folder"] = str(tmp_path / f"run-{world_size}")
        with begun(world_size, job, tmp_path / f"attempt-{world_size}", "jobs.coca:worker") as ranks:
            ended = ranks.wait()
        assert [rank.status for rank in ended] == [0] * world_size, ended
        assert "".join(rank.out for rank in ended).count(f"sample {key} ") == 1
        lines[world_size] = metrics.read(tmp_path / f"run-{world_size}" / metrics.FILE)
    for one, two in zip(lines[1], lines[2], strict=True):
        for name in [name for name in one if name.startswith(("train/", "eval/"))]:
            assert two[name] == pytest.approx(one[name], rel=2e-4), (one["step"], name)
