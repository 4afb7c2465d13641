"""`ecgchat submit slurm --dry-run`: a whole script, with the stage's settings in it, and nothing else."""

import os
import subprocess

import pytest
import yaml

from tests.jobs.conftest import contents

pytestmark = pytest.mark.usefixtures("no_machine")


def settings_in(script):
    """What the script hands to the stage."""
    return yaml.safe_load(script.partition("<<'END_OF_SETTINGS'\n")[2].partition("\nEND_OF_SETTINGS")[0])


def test_a_dry_run_prints_a_script_that_holds_the_settings_and_leaves_nothing(ecgchat, job, tmp_path):
    before = contents(tmp_path)
    words = ("--nodes", 2, "--gpus-per-node", 4, "--cpus-per-node", 32, "--train.steps", 7, "--time", "1-0", "--requeue", 3)
    own = ("--sbatch", "mem=0", "--sbatch", "exclusive")
    said = ecgchat("submit", "slurm", "coca", "--config", job, *words, *own, "--dry-run")
    assert (said.status, said.err) == (0, "")
    for line in ("--nodes=2", "--gpus-per-node=4", "--cpus-per-task=32", "--time=1-0", "--mem=0", "--exclusive", "--requeue"):
        assert f"#SBATCH {line}\n" in said.out
    settings = settings_in(said.out)
    assert (settings["train"]["steps"], settings["launch"]["workers"], settings["launch"]["gpus_per_worker"]) == (7, 8, 1)
    assert "command=(python -m jobs.coca)\n" in said.out
    assert "most_restarts=3 " in said.out
    assert contents(tmp_path) == before


def test_the_script_says_by_itself_where_it_belongs(ecgchat, job, tmp_path):
    said = ecgchat("submit", "slurm", "coca", "--config", job, "--dry-run")
    script = tmp_path / "job.sbatch"
    script.write_text(said.out)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "SLURM_SUBMIT_DIR: submit this script with sbatch" in done.stderr


def test_a_key_is_refused_wherever_it_stands(ecgchat, job, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    said = ecgchat("submit", "slurm", "coca", "--config", job, "--sbatch", "comment=0123456789abcdef", "--dry-run")
    assert (said.status, said.out) == (2, "")
    assert "WANDB_API_KEY: a key is not sent along" in said.err
    assert "0123456789abcdef" not in said.err
