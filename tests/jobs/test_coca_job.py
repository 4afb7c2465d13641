"""The job `coca` as it is started by hand, and what becomes of its run: an export, its evaluation, a second start."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cluster import metrics
from cluster.checkpoint import committed
from cluster.local import object_store
from ecgchat.models.coca import CocaModel
from ecgchat.text import load_tokenizer
from shards.build import BuildOptions, build
from shards.dataset import ShardSet
from shards.simulate.ptb_xl import simulate_ptb_xl
from shards.sources.ptb_xl import PtbXl
from shards.storage import Store
from tests.jobs.conftest import coca_settings, contents

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PATIENTS = 770_250_000
"""Added to the patient numbers, so that one is found wherever it stands."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An S3 server, its keys in the environment of this module's tests."""
    with object_store.serve(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def shards(store, tmp_path_factory):
    """A data set in the store, whose patients have telling numbers."""
    corpus = tmp_path_factory.mktemp("corpus")
    simulate_ptb_xl(corpus, records=120, seed=3, sampling_rates=(100,))
    table = corpus / "ptbxl_database.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        written = csv.DictWriter(file, rows[0])
        written.writeheader()
        written.writerows({**row, "patient_id": PATIENTS + float(row["patient_id"])} for row in rows)
    build(PtbXl(corpus, 100), f"{store.uri}/set", BuildOptions(records_per_shard=16))
    return f"{store.uri}/set"


def start(settings, *overrides):
    """Run the job's command and return what it left on the terminal."""
    folder = Path(settings["run"]["folder"])
    file = folder.with_name(f"{folder.name}.yaml")
    file.write_text(yaml.safe_dump(settings))
    # The ninja of this environment: another version would compile DeepSpeed's op again, and the next run once more.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path}
    for name in ("RAY_ADDRESS", "WORLD_SIZE", "RANK", "LOCAL_RANK", "WANDB_API_KEY"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "jobs.coca", "--config", str(file), *overrides]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=200, check=False)


def outcome(done):
    """What the job says at its end."""
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index("{\n") :])


@pytest.fixture(scope="module")
def settings(shards, tokenizer_folder, tmp_path_factory):
    return coca_settings(shards, tokenizer_folder, tmp_path_factory.mktemp("coca") / "run")


@pytest.fixture(scope="module")
def finished(settings):
    """The job, run to its end."""
    return start(settings)


@pytest.fixture(scope="module")
def run(settings, finished):
    """The run's folder."""
    assert finished.returncode == 0, finished.stderr[-3000:]
    return Path(settings["run"]["folder"])


@pytest.fixture
def again(run, settings, tmp_path):
    """A copy of the finished run, at the place where it was made, so that a test may go on with it."""
    aside = tmp_path / "aside"
    shutil.copytree(run, aside)
    yield run
    shutil.rmtree(run)
    aside.rename(run)


@pytest.fixture
def exported(ecgchat, run, tmp_path):
    said = ecgchat("export", run, "--out", tmp_path / "export")
    assert said.status == 0, said.err
    return tmp_path / "export"


def trained(run):
    return [line["step"] for line in metrics.read(run / metrics.FILE) if "train/loss" in line]


def steps(run):
    return [marker.step for marker in committed(Store(str(run)).child("checkpoints"))]


# --- the run


def test_the_job_trains_validates_commits_and_says_how_it_ended(finished, run):
    said = outcome(finished)
    assert (said["steps"], said["resumed_from"], said["world_size"]) == (4, 0, 1)
    assert said["checkpoint"] == f"file://{run}/checkpoints/step-000004"
    assert trained(run) == [1, 2, 3, 4]
    assert [line["step"] for line in metrics.read(run / metrics.FILE) if "eval/loss" in line] == [2, 4]
    assert steps(run) == [2, 4]
    assert "Traceback" not in finished.stderr


def test_nothing_that_a_run_leaves_names_a_patient_or_holds_a_key(finished, run, exported, shards, store):
    data = ShardSet.open(shards)
    patients = {data.sample(key)[2]["patient_id"] for key in data.index["key"].to_pylist()}
    assert all(patient.startswith("77025") for patient in patients)
    secret = store.environment["AWS_SECRET_ACCESS_KEY"]
    files = [path for folder in (run, exported) for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    left = {str(path): path.read_bytes() for path in files} | {"terminal": (finished.stdout + finished.stderr).encode()}
    for where, body in left.items():
        assert secret.encode() not in body, where
        assert not [patient for patient in patients if patient.encode() in body], where


def test_the_record_of_a_run_names_its_data_and_its_settings(run, shards, settings):
    record = json.loads((run / "config.json").read_text())
    assert record["data"]["index_sha256"] == ShardSet.open(shards).digest
    assert record["data"]["simulated"] is True
    assert record["run"]["train"]["optimizer"]["learning_rate"] == settings["train"]["optimizer"]["learning_rate"]


# --- the same command again


def test_the_same_command_again_ends_at_once_and_does_no_step_twice(again, settings):
    said = outcome(start(settings))
    assert (said["steps"], said["resumed_from"]) == (4, 4)
    lines = [json.loads(line) for line in (again / metrics.FILE).read_text().splitlines()]
    assert sorted(line["step"] for line in lines if "train/loss" in line) == [1, 2, 3, 4]
    assert steps(again) == [2, 4]


@pytest.fixture(scope="module")
def refused(run, settings):
    """The command again with another learning rate."""
    before = contents(run)
    done = start(settings, "--train.optimizer.learning_rate", "5e-3")
    assert contents(run) == before, "the run stays as it is"
    return done


def test_a_changed_setting_is_refused_by_its_name(refused):
    assert refused.returncode == 2
    [line] = refused.stderr.strip().splitlines()
    assert "train.optimizer.learning_rate 0.001 then, 0.005 now" in line


def test_the_advice_for_a_changed_setting_helps(refused):
    assert "run.folder" in refused.stderr


# --- export and evaluation


def test_an_export_is_a_plain_folder_without_pickle(exported):
    names = set(contents(exported))
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not [name for name in names if Path(name).suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")]
    for name in names:
        body = (exported / name).read_bytes()
        assert not body.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")), name


def test_its_card_names_data_configuration_and_checkpoint(exported, run, shards):
    card = (exported / "README.md").read_text()
    [attempt] = metrics.attempts(run / metrics.FILE)
    for fact in (
        "simulated-ptb-xl, 96 samples",
        ShardSet.open(shards).digest,
        "at 100.0 Hz",
        attempt["attempt"],
        '"learning_rate": 0.001',
        "knows nothing of patients",
    ):
        assert fact in card
    assert any(f"step-{step:06d}" in card for step in steps(run))


def test_the_exported_model_and_tokenizer_load(exported, tokenizer_folder):
    model = CocaModel.from_pretrained(exported).eval()
    saved = load_file(exported / "model.safetensors")
    for name, weight in model.state_dict().items():
        if name in saved:
            torch.testing.assert_close(weight, saved[name], rtol=0, atol=0)
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in saved.values())
    assert load_tokenizer(str(exported)).get_vocab() == load_tokenizer(tokenizer_folder).get_vocab()
    with torch.no_grad():
        latent = model.encode_ecg(torch.zeros(1, 12, 1000))
    assert latent.shape == (1, 16)


def test_the_best_checkpoint_is_exported_unless_a_step_is_named(ecgchat, run, tmp_path):
    markers = committed(Store(str(run)).child("checkpoints"))
    best = min(markers, key=lambda marker: marker.content["validation_loss"]).name
    assert best in ecgchat("export", run, "--out", tmp_path / "best").text
    assert "step-000002" in ecgchat("export", run, "--out", tmp_path / "named", "--step", 2).text
    assert "step-000002" in (tmp_path / "named" / "README.md").read_text()


def test_a_step_without_a_checkpoint_is_refused_with_those_that_are_there(ecgchat, run, tmp_path):
    said = ecgchat("export", run, "--out", tmp_path / "export", "--step", 3)
    assert said.status == 2
    [line] = said.err.strip().splitlines()
    assert "no committed checkpoint of step 3; there are 2, 4" in line
    assert not (tmp_path / "export").exists()


def test_an_evaluation_gives_every_measure_beside_its_chance(ecgchat, exported, shards, tmp_path):
    said = ecgchat("eval", exported, "--shards", shards, "--out", tmp_path / "results.json")
    assert said.status == 0, said.err
    results = json.loads((tmp_path / "results.json").read_text())
    assert {"ecg_to_text_recall_at_1", "text_to_ecg_recall_at_10", "zero_shot_auroc_macro"} <= set(results)
    for name, row in results.items():
        assert 0 <= row["value"] <= 1, name
        assert 0 < row["chance"] <= 1, name
        assert name in said.text


def test_an_evaluation_of_an_empty_split_or_at_another_rate_is_one_sentence(
    ecgchat, exported, shards, simulated_folder, tmp_path
):
    build(PtbXl(simulated_folder, 500), str(tmp_path / "500"), BuildOptions())
    for words, expected in (
        ((shards, "--split", "dev"), "split 'dev' is empty"),
        ((tmp_path / "500",), "sampled at 500 Hz, stage eval takes 100 Hz"),
    ):
        said = ecgchat("eval", exported, "--shards", *words, "--out", tmp_path / "results.json")
        assert said.status == 2
        [line] = said.err.strip().splitlines()
        assert expected in line
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(("zero_stage", "precision", "tolerance"), [(0, "fp32", 1e-5), (2, "bf16", 1e-2), (0, "bf16", 1e-2)])
def test_whatever_the_engine_the_export_has_the_same_weights(
    ecgchat, run, settings, tmp_path, zero_stage, precision, tolerance
):
    """Four steps at a rate of 0.001 move a weight by less than 0.004, so that the values say little; names and shapes do."""
    other = json.loads(json.dumps(settings))
    other["run"]["folder"] = str(tmp_path / "other")
    other["train"]["engine"] = {"zero_stage": zero_stage, "precision": precision}
    outcome(start(other))
    weights = []
    for folder in (run, tmp_path / "other"):
        said = ecgchat("export", folder, "--out", tmp_path / f"export-{folder.name}", "--step", 4)
        assert said.status == 0, said.err
        weights.append(load_file(tmp_path / f"export-{folder.name}" / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert weights[1][name].dtype == torch.float32
        torch.testing.assert_close(
            weights[1][name], weight, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
