"""The stages with frozen weights, on worker processes: the same numbers however the work is shared, cut short or resized."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from cluster import metrics
from cluster.markers import committed
from ecgchat.chat_export import write_chat
from jobs.align import AlignJob, AlignStage
from jobs.config import from_settings
from jobs.export import ExportJob, export
from shards.conversations.loader import ConversationLoader
from shards.dataset import ShardSet
from shards.loader import LoaderConfig
from shards.order import OrderConfig
from shards.storage import Store
from tests.cluster.conftest import torchrun
from tests.language import align_settings, instruct_settings, make_encoder, make_llm

pytestmark = pytest.mark.slow

ZERO_STAGES = {"align": [0, 3], "instruct": [0, 1, 2, 3]}

WAYS = {"1 x 1": (1, 1), "1 x 2": (1, 2), "2 x 1": (2, 1)}
"""Ways to share a step: workers, and micro-batches of each."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def encoder(folder):
    return make_encoder(folder / "encoder")


def aligned(settings, folder):
    """An export of `align` whose projector has learnt nothing."""
    stage = AlignStage(from_settings(AlignJob, settings))
    torch.manual_seed(0)
    write_chat(folder, stage.build_model().reader, settings["llm"], None)
    return str(folder)


@pytest.fixture(scope="module")
def align(dialogue_shards, encoder, folder):
    llm = make_llm(folder / "llm", dialogue_shards)
    return align_settings(dialogue_shards, encoder, llm, folder / "align")


@pytest.fixture(scope="module")
def instruct(dialogue_shards, align, folder):
    return instruct_settings(dialogue_shards, aligned(align, folder / "align-export"), folder / "instruct")


def with_engine(settings, zero_stage, accumulation=1, **order):
    """A copy of a job's settings with another engine, and with another order of its samples."""
    job = json.loads(json.dumps(settings))
    job["train"]["engine"] = {"zero_stage": zero_stage, "precision": "fp32", "gradient_accumulation": accumulation}
    job["data"]["loader"]["order"] |= order
    return job


def run(workers, worker, settings, folder):
    """Run a worker function on plain processes; what it has printed."""
    file = folder / "settings.json"
    # Every job has a run's folder, where the first cause of a failure is kept.
    file.write_text(json.dumps({"run": {"folder": str(folder / "run")}, **settings}))
    done = torchrun(workers, f"tests.cluster.language_workers:{worker}", file)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# --- the first step


@pytest.fixture(scope="module")
def order(dialogue_shards):
    """An order that begins with a conversation without an ECG, which is all that the first of two workers gets, and goes on
    with one about two ECGs and one about one."""
    data = ShardSet.open(dialogue_shards).select("train")

    def ecgs(order):
        batches = iter(ConversationLoader(data, LoaderConfig(OrderConfig(**order))))
        first = [len(sample.ecgs) for sample in next(batches).samples]
        batches.close()
        return first

    orders = ({"global_batch": 3, "lanes": 2, "block": 8, "seed": seed} for seed in range(1000))
    return next(order for order in orders if ecgs(order) in ([0, 1, 2], [0, 2, 1]))


@pytest.fixture(scope="module")
def first_steps(align, instruct, order, folder):
    """How the first step was shared, stage and ZeRO stage → what it came to."""
    results = {}
    for workers in (1, 2):
        jobs = {
            f"{way}: {stage} {zero_stage}": with_engine(settings, zero_stage, micro_batches, **order)
            for way, (of_workers, micro_batches) in WAYS.items()
            for stage, settings in (("align", align), ("instruct", instruct))
            for zero_stage in ZERO_STAGES[stage]
            if of_workers == workers
        }
        out = folder / f"first-{workers}.pt"
        run(workers, "first_steps", {"jobs": jobs, "out": str(out)}, folder)
        results |= torch.load(out)
    return results


@pytest.mark.parametrize("stage", ["align", "instruct"])
def test_however_the_first_step_is_shared_its_loss_and_gradients_are_the_same(first_steps, stage):
    plain = first_steps[f"1 x 1: {stage} 0"]
    # The four tensors of the projector; two for each of seven linear layers in each of two blocks.
    assert len(plain["gradients"]) == {"align": 4, "instruct": 32}[stage]
    assert all((gradient != 0).any() for gradient in plain["gradients"].values())
    for way, zero_stage in itertools.product(WAYS, ZERO_STAGES[stage]):
        where = f"{way}: {stage} {zero_stage}"
        found = first_steps[where]
        assert found["loss"] == pytest.approx(plain["loss"], rel=1e-5), where
        assert found["gradients"].keys() == plain["gradients"].keys(), where
        for name, gradient in plain["gradients"].items():
            torch.testing.assert_close(
                found["gradients"][name],
                gradient,
                rtol=1e-4,
                atol=1e-6,
                msg=lambda text, where=where, name=name: f"{where} {name}: {text}",
            )


def test_one_of_the_two_workers_had_no_ecg_and_the_other_three(first_steps):
    assert first_steps["1 x 1: align 0"]["places"] == [33]
    assert first_steps["2 x 1: align 0"]["places"] == [0, 33]


# --- whole runs


@pytest.fixture(scope="module")
def jobs(align, instruct, dialogue_shards, encoder, folder):
    """Runs of six steps. The adapters of the wide one lie on both sides of 1e5 elements, from where ZeRO-3 partitions."""
    chosen = {
        "align-2": with_engine(align, 2),
        "instruct-2": with_engine(instruct, 2),
        "instruct-3": with_engine(instruct, 3),
    }
    wide = align_settings(dialogue_shards, encoder, make_llm(folder / "wide-llm", dialogue_shards, 256), folder)
    wide = instruct_settings(dialogue_shards, aligned(wide, folder / "wide-export"), folder)
    chosen["wide-3"] = with_engine(wide | {"lora": {"rank": 300}}, 3)
    for name, job in chosen.items():
        job["run"]["folder"] = str(folder / "runs" / name)
        job["train"] |= {"steps": 6, "eval_every": 3, "checkpoint": {"every_steps": 2, "keep_last": 9}}
        job["train"]["tracking"] = {"wandb": "disabled", "log_every": 1}
    chosen["wide-3"]["train"]["steps"] = 1
    return chosen


@pytest.fixture(scope="module")
def undisturbed(jobs, folder):
    """Folder with all runs, done with two workers."""
    run(2, "whole_runs", {"jobs": jobs}, folder)
    (folder / "runs").rename(folder / "undisturbed")
    return folder / "undisturbed"


@pytest.fixture(scope="module")
def cut_short(undisturbed, jobs, folder):
    """Goes on with runs, as if nothing after step 2 had been committed; the folder that they are in, and what was printed."""

    def go_on(names, workers):
        shutil.copytree(undisturbed, folder / "runs")
        for name, step in itertools.product(names, (4, 6)):
            (folder / "runs" / name / "checkpoints" / f"step-{step:06d}.committed.json").unlink()
        said = run(workers, "whole_runs", {"jobs": {name: jobs[name] for name in names}}, folder)
        return (folder / "runs").rename(folder / f"cut-short-{workers}"), said

    return go_on


def figures(run_folder):
    """What the metrics say of the training itself, line by line."""
    return [
        {name: value for name, value in line.items() if name.startswith(("train/", "eval/"))}
        for line in metrics.read(run_folder / metrics.FILE)
    ]


def live(run_folder):
    """The trained weights that the engine held at the end."""
    return torch.load(run_folder / "live.pt")["whole"]


def held(run_folder):
    """Names of all weights in the files of the last checkpoint."""
    newest = committed(Store(str(run_folder)).child("checkpoints"))[-1]
    files = (run_folder / "checkpoints" / newest.folder).rglob("*_model_states.pt")
    states = [torch.load(file, weights_only=False) for file in files]
    assert states
    return set().union(*(state["module"] for state in states))


@pytest.mark.parametrize("name", ["align-2", "instruct-2", "instruct-3"])
def test_checkpoints_hold_no_frozen_weight_whatever_the_zero_stage(undisturbed, name):
    trained = live(undisturbed / name)
    assert held(undisturbed / name) == set(trained)
    assert all("projector" in name or ".lora_" in name for name in trained)


def test_a_run_that_is_cut_short_ends_where_an_undisturbed_one_ends(cut_short, undisturbed):
    names = ["align-2", "instruct-2", "instruct-3"]
    again, said = cut_short(names, workers=2)
    assert said.count("2 workers, 6 steps, resumed from committed step 2") == 3
    for name in names:
        assert [line["resumed_from"] for line in metrics.attempts(again / name / metrics.FILE)] == [0, 2]
        assert figures(again / name) == figures(undisturbed / name)
        assert sum("eval/loss" in line for line in figures(again / name)) == 2
        before, after = live(undisturbed / name), live(again / name)
        assert before.keys() == after.keys()
        for weight in before:
            assert torch.equal(before[weight], after[weight]), (name, weight)


def test_a_run_goes_on_with_another_number_of_workers(cut_short, undisturbed):
    """Through DeepSpeed's universal form, which has to do without the frozen weights."""
    names = ["instruct-2", "instruct-3"]
    resized, said = cut_short(names, workers=1)
    assert said.count("1 workers, 6 steps, resumed from committed step 2") == 2
    for name in names:
        assert list((resized / name / "checkpoints" / "step-000002").glob("*.universal.json"))
        for found, expected in zip(figures(resized / name), figures(undisturbed / name), strict=True):
            for figure, value in expected.items():
                assert found[figure] == pytest.approx(value, rel=1e-4), (name, figure)
        before, after = live(undisturbed / name), live(resized / name)
        for weight in before:
            torch.testing.assert_close(after[weight], before[weight], rtol=1e-4, atol=1e-5)


def test_what_zero_3_has_partitioned_is_exported_whole(undisturbed, jobs, folder):
    """A small test passes and a real run is lost where adapters are taken as one rank holds them."""
    ended = torch.load(undisturbed / "wide-3" / "live.pt")
    adapters = {name: weight for name, weight in ended["whole"].items() if ".lora_" in name}
    partitioned = {name for name in adapters if ended["parts"][name] == (0,)}
    assert partitioned == {name for name, weight in adapters.items() if weight.numel() > 1e5}
    assert 0 < len(partitioned) < len(adapters) == 28

    export(ExportJob(str(undisturbed / "wide-3"), str(folder / "wide")))
    exported = load_file(folder / "wide" / "adapter" / "adapter_model.safetensors")
    assert len(exported) == len(adapters)
    for name, weight in adapters.items():
        found = exported[name.removeprefix("llm.").replace(".default", "")]
        assert torch.equal(found, weight), name
        assert (found != 0).any(), name
    projector = {name.removeprefix("reader."): weight for name, weight in ended["whole"].items() if ".projector." in name}
    reader = load_file(folder / "wide" / "model.safetensors")
    assert len(projector) == 4
    assert all(torch.equal(reader[name], weight) for name, weight in projector.items())
