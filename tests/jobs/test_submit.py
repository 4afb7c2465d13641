"""`ecgchat submit` before any machine is taken: what it checks, what it would run, and what it never sends."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from jobs.coca import CocaJob
from jobs.config import parse
from jobs.submit import LAUNCHERS
from tests.jobs.conftest import contents

PROJECT = Path(__file__).parents[2]
ADDRESS = ("--address", "http://192.0.2.1:8265")

pytestmark = pytest.mark.usefixtures("no_machine")


def refused(said, *pieces):
    assert (said.status, said.out) == (2, ""), said
    [line] = said.err.strip().splitlines()
    assert line.startswith("ecgchat: ")
    for piece in pieces:
        assert piece in line


def planned(said):
    """The plan and the settings of a dry run."""
    assert (said.status, said.err) == (0, ""), said
    plan, _, settings = said.out.partition("\n\n# ")
    return json.loads(plan), settings.partition("\n")


def test_a_dry_run_prints_what_would_run_and_leaves_nothing(ecgchat, job, tmp_path):
    before = contents(tmp_path)
    words = ("--nodes", 2, "--gpus-per-node", 4, "--cpus-per-node", 32, "--train.steps", 7)
    plan, (file, _, text) = planned(ecgchat("submit", "ray", "coca", "--config", job, *words, *ADDRESS, "--dry-run"))
    assert file.startswith(f"file://{tmp_path}/run/launch/")
    assert shlex.split(plan["entrypoint"])[:5] == ["python", "-m", "jobs.coca", "--config", file]
    assert plan["workers"] == "8 on 2 nodes, 4 GPUs and 32 CPUs each"
    settings = yaml.safe_load(text)
    assert settings["launch"]["workers"] == 8
    assert settings["launch"]["gpus_per_worker"] == 1
    assert settings["launch"]["cpus_per_worker"] == 8
    assert settings["train"]["steps"] == 7
    assert contents(tmp_path) == before


def test_the_settings_that_are_written_are_those_that_were_typed(ecgchat, job, tmp_path):
    _, (_, _, text) = planned(ecgchat("submit", "ray", "coca", "--config", job, *ADDRESS, "--dry-run"))
    (tmp_path / "written.yaml").write_text(text)
    uri = f"file://{tmp_path}/run"
    typed = parse(CocaJob, ["--config", str(job), "--run.folder", uri], "typed")
    assert parse(CocaJob, ["--config", f"file://{tmp_path}/written.yaml"], "written") == typed


def test_a_command_is_taken_as_it_is(ecgchat):
    plan, _ = planned(ecgchat("submit", "ray", *ADDRESS, "--dry-run", "--", "python", "a b.py", "--dry-run"))
    assert plan["entrypoint"] == "python 'a b.py' --dry-run"


def test_a_variable_goes_along_by_its_name(ecgchat, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    plan, _ = planned(ecgchat("submit", "ray", *ADDRESS, "--env", "NCCL_DEBUG", "--dry-run", "--", "true"))
    assert plan["runtime_env"]["env_vars"] == {"NCCL_DEBUG": "INFO"}


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        (("coca", "--config", "job.yaml", "--train.stepz", "3"), ("train.stepz: no such setting", "did you mean train.steps?")),
        (("coca", "--config", "job.yaml", "--train.steps", "0"), ("train.steps", "at least 1")),
        (("coca", "--config", "job.yaml", "--nodes", "2", "--launch.workers", "2"), ("--launch.workers", "--nodes")),
        (("coca", "--config", "job.yaml", "--gpus-per-node", "8"), ("nodes", "--nodes N")),
        (("cocoa",), ("cocoa: no such stage", "coca, align, instruct")),
        ((), ("a stage", "command after --", "neither")),
        (("coca", "--", "true"), ("both",)),
        (("--nodez", "2", "--", "true"), ("--nodez: no such option",)),
        (("--env", "NOT_SET_HERE", "--", "true"), ("NOT_SET_HERE", "set it")),
        (("--env", "WANDB_API_KEY", "--", "true"), ("WANDB_API_KEY", "environment of the cluster's machines")),
        (("--env", "WANDB_API_KEY=sesame-open", "--", "true"), ("WANDB_API_KEY", "environment of the cluster's machines")),
        (("--", "env", "AWS_SECRET_ACCESS_KEY=sesame-open", "python"), ("AWS_SECRET_ACCESS_KEY",)),
        (("coca", "--config", "job.yaml", "--run.name", "sesame-open"), ("HF_TOKEN",)),
        (("--address", "http://me:sesame-open@h:8265", "--", "true"), ("--address", "no user or password")),
    ],
)
def test_what_cannot_be_is_one_sentence_and_no_key_is_told(ecgchat, job, tmp_path, monkeypatch, words, pieces):
    monkeypatch.setenv("HF_TOKEN", "sesame-open")
    before = contents(tmp_path)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", ADDRESS[1])
    said = ecgchat("submit", "ray", *(job if word == "job.yaml" else word for word in words))
    refused(said, *pieces)
    assert "sesame" not in said.err
    assert contents(tmp_path) == before


def test_the_same_command_line_makes_a_rayjob(ecgchat, job):
    words = ("--nodes", 2, "--cpus-per-node", 8, "--image", "registry.example/ecgchat:1", "--run.folder", "s3://b/runs/x")
    said = ecgchat("submit", "kubernetes", "coca", "--config", job, *words, "--dry-run")
    assert (said.status, said.err) == (0, "")
    made, _, settings = said.out.partition("\n# ")
    assert yaml.safe_load(made)["kind"] == "RayJob"
    assert yaml.safe_load(made)["spec"]["entrypoint"].startswith("python -m jobs.coca --config s3://b/runs/x/launch/")
    assert yaml.safe_load(settings.partition("\n")[2])["launch"]["workers"] == 2


def test_an_address_is_needed(ecgchat, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    refused(ecgchat("submit", "ray", "--", "true"), "--address", "RAY_API_SERVER_ADDRESS")


DOCUMENTED = sorted(
    {
        " ".join(command.split())
        for file in ("README.md", "docs/cluster.md")
        for command in re.findall(r"^ecgchat submit (?:.*\\\n)*.*$", (PROJECT / file).read_text(), re.MULTILINE)
        if "…" not in command  # what is shortened is no whole command
    }
)


@pytest.mark.parametrize("command", DOCUMENTED, ids=lambda command: command[15:60])
def test_every_documented_submission_passes_a_dry_run(ecgchat, monkeypatch, command):
    monkeypatch.chdir(PROJECT)
    before, dashes, after = command.replace("\\ ", "").removeprefix("ecgchat ").partition(" -- ")
    words = [*shlex.split(before.replace("--dry-run", "")), "--dry-run", *shlex.split(dashes + after)]
    said = ecgchat(*words)
    assert (said.status, said.err) == (0, ""), said


def test_the_documents_show_every_launcher():
    shown = {command.split()[2] for command in DOCUMENTED}
    assert shown == set(LAUNCHERS)
