"""The jobs `align` and `instruct` as they are started by hand, and what becomes of their runs: exports that others open,
their evaluation, and a talk about an ECG."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster import metrics
from cluster.markers import committed
from cluster.world import World
from ecgchat.chat_export import load_chat
from ecgchat.conversation import collate, tokenise
from ecgchat.models.coca import CocaModel
from ecgchat.models.ecg_chat import IGNORE
from ecgchat.models.ecg_reader import EcgReader
from jobs.config import from_settings
from jobs.eval_chat import evaluate_chat
from jobs.export import ExportJob, export
from jobs.instruct import InstructJob, InstructStage
from jobs.language import ecgs_to_millivolts
from shards.dataset import ShardSet
from shards.storage import Store
from tests.jobs.conftest import coca_settings, contents
from tests.jobs.test_cli import assert_one_sentence
from tests.language import TOKENS_PER_ECG, align_settings, instruct_settings, make_encoder, make_llm

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
KEY = "simulated-ptb-xl-3"
STAGES = ("align", "instruct")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def start(stage, settings):
    """Run a job's command in a process of its own."""
    file = Path(settings["run"]["folder"]).with_suffix(".yaml")
    file.write_text(yaml.safe_dump(settings))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("RAY_ADDRESS", "WORLD_SIZE", "RANK", "LOCAL_RANK", "WANDB_API_KEY"):
        environment.pop(name, None)
    command = [sys.executable, "-m", f"jobs.{stage}", "--config", str(file)]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=200, check=False)


def finished(stage, settings):
    """The run's folder, after it has ended well."""
    done = start(stage, settings)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout[done.stdout.index("{\n") :])["steps"] == 4
    return Path(settings["run"]["folder"])


def exported(run):
    """The export of a run, made while no name of another machine can be looked up."""
    asked = []

    def nobody(host, *rest, **named):
        asked.append(host)
        raise OSError("there is no network here")

    folder = run.with_name(f"{run.name}-export")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", nobody)
        export(ExportJob(str(run), str(folder)))
    assert asked == [], "an export asks nobody"
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("language")


@pytest.fixture(scope="module")
def encoder(folder):
    return make_encoder(folder / "encoder")


@pytest.fixture(scope="module")
def llm(folder, dialogue_shards):
    return make_llm(folder / "llm", dialogue_shards)


@pytest.fixture(scope="module")
def align(report_shards, encoder, llm, folder):
    """Settings of the job that everything here begins with."""
    return align_settings(report_shards, encoder, llm, folder / "align")


@pytest.fixture(scope="module")
def aligned(align):
    return finished("align", align)


@pytest.fixture(scope="module")
def align_export(aligned):
    return exported(aligned)


@pytest.fixture(scope="module")
def instruct(dialogue_shards, align_export, folder):
    """In bf16, and with micro-batches of which the last is empty: twelve conversations in five parts of three."""
    settings = instruct_settings(dialogue_shards, str(align_export), folder / "instruct")
    settings["train"]["engine"] = {"zero_stage": 1, "precision": "bf16", "gradient_accumulation": 5}
    return settings


@pytest.fixture(scope="module")
def instructed(instruct):
    return finished("instruct", instruct)


@pytest.fixture(scope="module")
def instruct_export(instructed):
    return exported(instructed)


@pytest.fixture(scope="module")
def runs(aligned, instructed):
    return dict(zip(STAGES, (aligned, instructed), strict=True))


@pytest.fixture(scope="module")
def exports(align_export, instruct_export):
    return dict(zip(STAGES, (align_export, instruct_export), strict=True))


# --- the runs


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_writes_its_losses_its_speed_and_one_wandb_run(runs, stage):
    lines = metrics.read(runs[stage] / metrics.FILE)
    trained = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4]
    for line in trained:
        assert line["train/loss_answer"] == line["train/loss"] > 0
        assert line["perf/tokens_per_s"] > line["perf/samples_per_s"] * TOKENS_PER_ECG / 2
    validated = [line["eval/loss_answer"] for line in lines if "eval/loss_answer" in line]
    assert len(validated) == 2
    assert validated[1] < validated[0]
    run_id = json.loads((runs[stage] / "wandb_run.json").read_text())["id"]
    [offline] = [path.name for path in runs[stage].rglob("*.wandb")]
    assert run_id in offline


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_holds_what_is_trained_alone_and_names_what_is_frozen(runs, exports, stage):
    [state] = runs[stage].glob("checkpoints/step-000004/*/rank-00000/state/mp_rank_00_model_states.pt")
    held = torch.load(state, weights_only=False)["module"]
    reader = {f"reader.{name}" for name in load_file(exports[stage] / "model.safetensors") if "projector" in name}
    assert len(reader) == 4
    adapters = {name for name in held if name.startswith("llm.") and ".lora_" in name}
    # Seven linear layers in each of two blocks, two matrices each.
    assert len(adapters) == (28 if stage == "instruct" else 0)
    assert set(held) == reader | adapters

    [newest] = [marker for marker in committed(Store(str(runs[stage])).child("checkpoints")) if marker.step == 4]
    assert set(newest.content["frozen"]) == {"llm", "encoder"}
    record = json.loads((runs[stage] / "config.json").read_text())
    assert record["frozen"] == newest.content["frozen"]


def test_both_stages_train_upon_the_same_frozen_weights(runs):
    digests = [json.loads((runs[stage] / "config.json").read_text())["frozen"]["llm"] for stage in STAGES]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("stage", STAGES)
def test_another_llm_under_the_same_name_is_refused_at_a_resume(runs, align, instruct, stage):
    settings = {"align": align, "instruct": instruct}[stage]
    weights = Path(settings.get("llm") or f"{settings['align']}/llm", "model.safetensors")
    before, kept = contents(runs[stage]), weights.read_bytes()
    changed = load_file(weights)
    changed["model.norm.weight"] += 1e-3
    try:
        save_file(changed, weights, metadata={"format": "pt"})
        done = start(stage, settings)
    finally:
        weights.write_bytes(kept)
    assert done.returncode == 2
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("ecgchat: ")]
    assert "the frozen weights are not those that this run began with (" in sentence
    assert "llm " in sentence
    assert "Traceback" not in done.stderr
    assert contents(runs[stage]) == before


def test_a_rank_with_more_micro_batches_than_conversations_has_empty_ones(instruct):
    job = json.loads(json.dumps(instruct))
    job["data"]["loader"]["order"]["global_batch"] = 3
    stage = InstructStage(from_settings(InstructJob, job))
    data = stage.training_data(World(0, 1, torch.device("cpu"), "alone"), None)
    micro_batches = next(data).micro_batches
    data.close()
    assert len(micro_batches) == 5
    assert [bool((batch.labels != IGNORE).any()) for batch in micro_batches] == [True] * 3 + [False] * 2
    assert {batch.tokens.ndim for batch in micro_batches} == {2}


def test_the_projector_learns_with_the_adapters_unless_it_is_told_not_to(instruct):
    for train_projector in (True, False):
        model = InstructStage(from_settings(InstructJob, {**instruct, "train_projector": train_projector})).build_model()
        learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert any(".lora_A." in name for name in learns)
        assert {name for name in learns if ".lora_" not in name} == {
            f"reader.projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias") if train_projector
        }


# --- the exports


@pytest.mark.parametrize("stage", STAGES)
def test_an_export_holds_safetensors_and_no_pickle(exports, stage):
    names = set(contents(exports[stage]))
    adapters = {"adapter/adapter_model.safetensors"} if stage == "instruct" else set()
    weights = {name for name in names if name.endswith(".safetensors")}
    assert weights == {"model.safetensors", "llm/model.safetensors"} | adapters
    assert {"config.json", "README.md", "tokenizer.json", "llm/config.json"} <= names
    for name in names:
        body = (exports[stage] / name).read_bytes()
        assert not body.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")), name


@pytest.mark.parametrize("stage", STAGES)
def test_an_export_names_no_folder_of_the_machine_that_made_it_where_others_look(exports, stage, folder):
    for name in contents(exports[stage]):
        if Path(name).suffix == ".json" and name != "training.json":
            assert str(folder) not in (exports[stage] / name).read_text(), name


def test_an_export_opens_in_plain_transformers_and_peft(instruct_export):
    tokenizer = AutoTokenizer.from_pretrained(instruct_export)
    tokens = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which rhythm is it?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    chat, own = load_chat(str(instruct_export))
    assert own.chat_template == tokenizer.chat_template
    llm = AutoModelForCausalLM.from_pretrained(instruct_export / "llm").eval()
    with torch.no_grad():
        expected, bare = chat.llm(input_ids=tokens).logits, llm(input_ids=tokens).logits
        found = PeftModel.from_pretrained(llm, instruct_export / "adapter").eval()(input_ids=tokens).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.allclose(found, bare, atol=1e-3)


def test_adapters_have_their_true_shapes_and_have_learnt(instruct_export):
    adapters = load_file(instruct_export / "adapter" / "adapter_model.safetensors")
    assert len(adapters) == 28
    layer = "base_model.model.model.layers.1"
    assert adapters[f"{layer}.mlp.up_proj.lora_A.weight"].shape == (4, 32)
    assert adapters[f"{layer}.mlp.up_proj.lora_B.weight"].shape == (85, 4)
    assert adapters[f"{layer}.mlp.down_proj.lora_A.weight"].shape == (4, 85)
    for name, weight in adapters.items():
        assert weight.dtype == torch.float32, name
        assert (weight != 0).any(), name


def test_the_tower_stays_the_encoders_through_both_stages_while_the_projector_learns(exports, encoder):
    tower = CocaModel.from_pretrained(encoder).ecg.state_dict()
    readers = [EcgReader.from_pretrained(exports[stage]) for stage in STAGES]
    for reader in readers:
        assert not any(parameter.requires_grad for parameter in reader.tower.parameters())
        for name, weight in reader.tower.state_dict().items():
            assert torch.equal(weight, tower[name]), name
    projectors = [reader.projector.state_dict() for reader in readers]
    assert all(not torch.equal(projectors[0][name], projectors[1][name]) for name in projectors[0])


def test_an_export_of_align_is_the_llm_as_it_was(align_export, llm):
    before, after = (load_file(Path(folder, "model.safetensors")) for folder in (llm, align_export / "llm"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not (align_export / "adapter").exists()


# --- evaluation


@pytest.fixture(scope="module")
def blind(instruct_export, folder):
    """The same model, but that every ECG looks alike to it."""
    copy = folder / "blind"
    shutil.copytree(instruct_export, copy)
    weights = load_file(copy / "model.safetensors")
    nothing = {name: weight * 0 if "projector" in name else weight for name, weight in weights.items()}
    save_file(nothing, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def test_an_evaluation_stands_beside_a_constant_and_another_patients_ecg(ecgchat, instruct_export, dialogue_shards, tmp_path):
    said = ecgchat("eval", instruct_export, "--shards", dialogue_shards, "--out", tmp_path / "results.json")
    assert said.status == 0, said.err
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {"answers_rhythm", "answers_finding", "answers_rate", "report_bleu_4", "report_findings_f1"} <= set(rows)
    for name, row in rows.items():
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1, name
        for other in ("majority", "shuffled"):
            assert 0 <= row[other]["value"] <= 1, name
        assert row["n"] > 0
        assert name in said.text


def test_a_model_that_sees_nothing_answers_another_patients_ecg_alike(blind, instruct_export, dialogue_shards):
    seen, unseen = (evaluate_chat(str(model), dialogue_shards, "test", 6, 32) for model in (instruct_export, blind))
    assert seen.answered.said != seen.answered.said_of_another
    assert unseen.answered.said == unseen.answered.said_of_another
    assert unseen.rows
    for name, row in unseen.rows.items():
        assert row["looks_at_ecg"] is False, name
        assert row["value"] == row["shuffled"]["value"], name


# --- talking


def answer(export, shards, turns, words):
    """What the model of an export says next to turns about the ECG of `KEY`, put together from the parts."""
    model, tokenizer = load_chat(str(export))
    _, ecg, record = ShardSet.open(shards).sample(KEY)
    conversation = tokenise(tokenizer, turns, TOKENS_PER_ECG, 512)
    batch = collate([conversation], ecgs_to_millivolts([(ecg, record["mv_per_lsb"])], 1000, torch.float32), 0, "left")
    new = model.generate(batch, words, do_sample=False, pad_token_id=0)
    return tokenizer.decode(new[0], skip_special_tokens=True).strip()


def asked(question):
    return {"from": "human", "value": question}


@pytest.mark.parametrize("stage", STAGES)
def test_a_question_about_a_record_of_a_data_set_or_of_a_file_is_answered(
    ecgchat, exports, stage, simulated_shards, simulated_folder
):
    words = ("--question", "Which rhythm is it?", "--max_new_tokens", 24)
    by_key = ecgchat("chat", exports[stage], "--shards", simulated_shards, "--ecg", KEY, *words)
    assert by_key.status == 0, by_key.err
    expected = answer(exports[stage], simulated_shards, [asked("<ecg>\nWhich rhythm is it?")], 24)
    assert expected
    assert by_key.out.strip() == expected
    record = simulated_folder / "records100" / "00000" / "00003_lr"
    for path in (record, record.with_suffix(".hea")):
        assert ecgchat("chat", exports[stage], "--ecg", path, *words).out == by_key.out


def test_a_talk_goes_on_until_an_empty_line_and_remembers_what_was_said(
    ecgchat, instruct_export, simulated_shards, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO("Which rhythm is it?\nAnd the rate?\n\nNobody asks this.\n"))
    said = ecgchat("chat", instruct_export, "--shards", simulated_shards, "--ecg", KEY, "--max_new_tokens", 16)
    turns = [asked("<ecg>\nWhich rhythm is it?")]
    turns.append({"from": "gpt", "value": answer(instruct_export, simulated_shards, turns, 16)})
    turns.append(asked("And the rate?"))
    turns.append({"from": "gpt", "value": answer(instruct_export, simulated_shards, turns, 16)})
    assert said.text == " ".join(f"{turns[1]['value']} {turns[3]['value']}".split())


def test_words_are_drawn_from_a_seed(ecgchat, instruct_export):
    def told(seed):
        words = ("--sample", "true", "--temperature", 2, "--seed", seed, "--max_new_tokens", 24)
        return ecgchat("chat", instruct_export, "--question", "What is a P wave?", *words).out

    assert told(1) == told(1) != told(2)


# --- what cannot be


@pytest.fixture
def command(no_machine, ecgchat, align, instruct, tmp_path):
    """Type `ecgchat train STAGE` with the settings of this module, into a run folder that does not exist."""

    def typed(stage, *overrides):
        file = tmp_path / f"{stage}.yaml"
        settings = {"align": align, "instruct": instruct}[stage]
        file.write_text(yaml.safe_dump({**settings, "run": {"folder": str(tmp_path / "run"), "name": "small"}}))
        before = contents(tmp_path)
        said = ecgchat("train", stage, "--config", file, *overrides)
        assert contents(tmp_path) == before, "nothing is written"
        return said

    return typed


def copied(source, target, **changes):
    """A copy of a model folder with another `config.json`."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


def test_data_of_the_other_kind_is_refused_by_each_stage(
    command, ecgchat, simulated_shards, dialogue_shards, tokenizer_folder, tmp_path
):
    said = command("align", "--data.shards", simulated_shards)
    assert_one_sentence(said, "kind 'ecg', align takes kind 'conversation'", "ecgchat shards conversations")
    file = tmp_path / "coca.yaml"
    file.write_text(yaml.safe_dump(coca_settings(dialogue_shards, tokenizer_folder, tmp_path / "run")))
    said = ecgchat("train", "coca", "--config", file)
    assert_one_sentence(said, "kind 'conversation'", "takes kind 'ecg'", "'ecgchat shards build'")


def test_a_context_that_an_ecg_fills_or_that_the_llm_cannot_read_is_refused(command):
    said = command("align", "--data.context_length", TOKENS_PER_ECG)
    assert_one_sentence(said, "data.context_length 11: one ECG takes 11 tokens of it", "more than 11")
    assert_one_sentence(command("instruct", "--data.context_length", 513), "data.context_length 513", "at most 512 tokens")


def test_an_llm_without_a_pad_token_is_refused_until_one_is_named(command, llm, tmp_path):
    shutil.copytree(llm, tmp_path / "llm")
    file = tmp_path / "llm" / "tokenizer_config.json"
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != "pad_token"}))
    assert_one_sentence(command("align", "--llm", tmp_path / "llm"), "no pad token", "--pad_token")
    named = command("align", "--llm", tmp_path / "llm", "--pad_token", "</s>", "--dry-run")
    assert named.status == 0, named.err
    said = command("align", "--llm", tmp_path / "llm", "--pad_token", "<nothing>")
    assert_one_sentence(said, "pad_token '<nothing>'", "no such token")


def test_a_folder_of_another_model_is_refused(command, encoder, llm, instruct_export):
    assert_one_sentence(command("align", "--encoder", llm), "no exported ECG-CoCa", "a model of type 'llama'")
    assert_one_sentence(command("align", "--llm", encoder), "no LLM can be read from it")
    assert_one_sentence(command("instruct", "--align", encoder), "a model of type 'ecg_coca'", "export of align")
    assert_one_sentence(command("instruct", "--align", instruct_export), "whose adapters would be left out")
    assert_one_sentence(command("align", "--encoder", "/nowhere/encoder"), "/nowhere/encoder: no such folder")


def test_an_export_of_align_that_names_no_llm_is_refused(command, align_export, tmp_path):
    nameless = copied(align_export, tmp_path / "nameless", llm="")
    assert_one_sentence(command("instruct", "--align", nameless), "config.json names no LLM; export the run of align")


def test_bad_settings_of_either_stage_are_named(command):
    assert_one_sentence(command("align", "--projector.tokens", "some"), "projector.tokens", "some")
    assert_one_sentence(command("instruct", "--lora.rank", 0, "--dry-run"), "lora.rank", "at least 1")


@pytest.mark.parametrize(
    ("part", "file", "pieces"),
    [
        (
            "adapter",
            "adapter_config.json",
            ("names an adapter, but adapter/adapter_config.json is not there", "copy the whole"),
        ),
        ("llm", "config.json", ("names an LLM, but llm/config.json is not there", "copy the whole export")),
    ],
)
def test_an_export_with_a_part_missing_is_refused(ecgchat, instruct_export, dialogue_shards, tmp_path, part, file, pieces):
    copy = copied(instruct_export, tmp_path / "export")
    shutil.rmtree(copy / part)
    assert_one_sentence(ecgchat("chat", copy, "--question", "Hm?"), *pieces)
    assert_one_sentence(ecgchat("eval", copy, "--shards", dialogue_shards), *pieces)


def test_an_evaluation_on_data_of_another_kind_or_of_no_export_is_refused(
    ecgchat, instruct_export, simulated_shards, llm, dialogue_shards
):
    said = ecgchat("eval", instruct_export, "--shards", simulated_shards)
    assert_one_sentence(said, "kind 'ecg', eval takes kind 'conversation'")
    assert_one_sentence(ecgchat("chat", llm, "--question", "Hm?"), "a model of type 'llama', expected an export of align")


def test_a_talk_that_cannot_be_is_refused(ecgchat, instruct_export, simulated_folder, simulated_shards, dialogue_shards):
    ask = ("--question", "Which rhythm is it?")
    said = ecgchat("chat", instruct_export, "--question", "<ecg> Which rhythm is it?")
    assert_one_sentence(said, "1 <ecg> marks, expected 0", "--ecg")
    said = ecgchat("chat", instruct_export, "--shards", simulated_shards, "--ecg", KEY, "--question", "<ecg> or <ecg>?")
    assert_one_sentence(said, "2 <ecg> marks, expected 1", "leave the mark out")
    faster = simulated_folder / "records500" / "00000" / "00003_hr"
    assert_one_sentence(ecgchat("chat", instruct_export, "--ecg", faster, *ask), "sampled at 500 Hz", "reads 100 Hz")
    said = ecgchat("chat", instruct_export, "--shards", simulated_shards, "--ecg", "simulated-ptb-xl-0", *ask)
    assert_one_sentence(said, "no sample 'simulated-ptb-xl-0'", "keys look like simulated-ptb-xl-")
    said = ecgchat("chat", instruct_export, "--shards", dialogue_shards, "--ecg", f"{KEY}-dialogue", *ask)
    assert_one_sentence(said, "kind 'conversation'")
    assert_one_sentence(
        ecgchat("chat", instruct_export, "--ecg", "/nowhere/record", *ask),
        "--ecg /nowhere/record: no such WFDB record",
        "--shards",
    )
    said = ecgchat("chat", instruct_export, *ask, "--max_new_tokens", 500)
    assert_one_sentence(said, "does not fit the LLM's context beside 500 new tokens")


# --- the dry run


@pytest.mark.parametrize(
    ("stage", "facts"),
    [
        ("align", ("train 96, validation 11", "12 samples over 1 workers: 12 each, no accumulation", "4, 8 an epoch")),
        ("instruct", ("train 126, validation 18", "12 each, in 5 micro-batches", "4, 10 an epoch", "ZeRO-1, bf16")),
    ],
)
def test_a_dry_run_says_what_would_be_done_and_leaves_nothing(command, stage, facts):
    said = command(stage, "--dry-run")
    assert said.status == 0, said.err
    for fact in (
        *facts,
        "nothing was started",
        "M trained",
        "M frozen",
        "llama, attention",
        "256 tokens, 11 of them for each ECG",
    ):
        assert fact in said.text
