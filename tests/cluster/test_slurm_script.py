"""Which environments say how many GPUs, and what a script for Slurm holds: no Slurm runs here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import RunError
from cluster.launch.slurm import SlurmOptions, SlurmSpec, _Output, _status, job_facts, render, submit
from cluster.launch.spec import LaunchSpec

STAGE = LaunchSpec("coca", ("--config", "my run.yaml"), name="first", nodes=2, gpus_per_node=4, cpus_per_node=32)

ANNOUNCED = {
    "--gpus-per-node=4": (4, {"SLURM_GPUS_ON_NODE": "4", "SLURM_GPUS_PER_NODE": "4"}),
    "--gpus-per-node=a100:4, without the count of the node": (4, {"SLURM_GPUS_PER_NODE": "a100:4"}),
    "--gres=gpu:h100:8": (8, {"SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_GPUS": "0,1,2,3,4,5,6,7"}),
    "--gpus=16 on two nodes": (8, {"SLURM_GPUS": "16", "SLURM_GPUS_ON_NODE": "8"}),
    "nothing of the node's, with the count of the type": (4, {"SLURM_GPUS_ON_NODE": "gpu:a100:4"}),
    "a shared node, GPUs 2 and 3": (2, {"SLURM_JOB_GPUS": "2,3", "CUDA_VISIBLE_DEVICES": "0,1"}),
    "a range": (4, {"SLURM_STEP_GPUS": "0-3"}),
    "ranges and numbers": (4, {"SLURM_STEP_GPUS": "0-1,4,7"}),
    "one GPU, number 0": (1, {"CUDA_VISIBLE_DEVICES": "0"}),
    "MIG and UUIDs": (2, {"CUDA_VISIBLE_DEVICES": "MIG-1f2e3d4c-0000,GPU-5a6b7c8d-1111"}),
    "AMD": (2, {"ROCR_VISIBLE_DEVICES": "0,1"}),
    "--gpus-per-task=1, 4 tasks a node": (4, {"SLURM_GPUS_PER_TASK": "1", "SLURM_NTASKS_PER_NODE": "4"}),
    "--gpus-per-task=a100:2": (2, {"SLURM_GPUS_PER_TASK": "a100:2"}),
    "Perlmutter: per task is empty": (4, {"SLURM_GPUS_PER_TASK": "", "SLURM_TRES_PER_TASK": "gres/gpu:a100:4"}),
    "gres:gpu:4": (4, {"SLURM_TRES_PER_TASK": "gres:gpu:4"}),
    "gres/gpu=4 beside CPUs": (4, {"SLURM_TRES_PER_TASK": "cpu=16,gres/gpu=4"}),
    "gres/gpu:a100=4 before CPUs": (4, {"SLURM_TRES_PER_TASK": "gres/gpu:a100=4,cpu=16"}),
    "gres/gpu:4 with another resource": (4, {"SLURM_TRES_PER_TASK": "gres/nvme:2,gres/gpu:4"}),
    "no GPU": (0, {}),
    "no GPU, said so": (0, {"SLURM_GPUS_ON_NODE": "0", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}),
    "no GPU, in a list": (0, {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}),
    "no GPU, but CPUs of a task": (0, {"SLURM_TRES_PER_TASK": "cpu=8"}),
    "none is visible": (0, {"CUDA_VISIBLE_DEVICES": "-1"}),
}
"""Asked for by → the GPUs of a node, and what Slurm then says in a task's environment."""


@pytest.mark.parametrize("said", ANNOUNCED)
def test_gpus_are_counted_however_a_site_announces_them(said: str) -> None:
    expected, environment = ANNOUNCED[said]
    functions = "\n".join(re.findall(r"^count_\w+\(\) \{.*?^\}", render(SlurmSpec(STAGE)), re.DOTALL | re.MULTILINE))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{functions}\ncount_gpus"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


def test_the_script_asks_for_what_the_launch_says() -> None:
    options = SlurmOptions(time="2-00:00:00", requeue=3, warning_s=600, account="p1", partition="gpu", constraint="a100&nvlink")
    assert directives(render(SlurmSpec(STAGE, options))) == [
        "--job-name=first-coca",
        "--output=%x_%j.out",
        "--open-mode=append",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=4",
        "--cpus-per-task=32",
        "--time=2-00:00:00",
        "--account=p1",
        "--partition=gpu",
        "--constraint=a100&nvlink",
        "--signal=B:USR1@600",
        "--requeue",
    ]


def test_a_sites_own_options_come_beside_ours_or_take_their_place() -> None:
    own = ("mem=0", "exclusive", "comment=a word", "gpus-per-node=h100:4", "array=0-3")
    found = directives(render(SlurmSpec(STAGE, SlurmOptions(requeue=0, sbatch=own))))
    assert {"--mem=0", "--exclusive", "--gpus-per-node=h100:4", "--array=0-3", "--no-requeue"} <= set(found)
    assert "--output=%x_%A_%a.out" in found
    assert "--comment='a word'" in found
    assert "--gpus-per-node=4" not in found


@pytest.mark.parametrize(
    "options",
    [
        SlurmOptions(),
        SlurmOptions(container="/images/ecgchat it's.sif"),
        SlurmOptions(env_file="~/keys and more.env", requeue=0),
    ],
)
@pytest.mark.parametrize("settings", ["", "run:\n  name: it's $HOME `x`\n"])
def test_every_form_of_the_script_is_one_for_bash(options: SlurmOptions, settings: str, tmp_path: Path) -> None:
    script = tmp_path / "job.sbatch"
    launch = LaunchSpec("coca", ("--a", "it's $HOME; `x`"), name="a b/c", environment=("SITE", "OTHER"))
    script.write_text(render(SlurmSpec(launch, options, settings)))
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "{{" not in script.read_text().replace("{##", "")
    assert "--job-name=a-b-c-coca" in script.read_text()


def test_keys_never_get_into_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    assert "0123456789abcdef" not in render(SlurmSpec(STAGE))
    with pytest.raises(RunError, match="WANDB_API_KEY: a key is not sent along"):
        SlurmOptions(sbatch=("comment=0123456789abcdef",))


def test_an_option_that_is_none_is_refused() -> None:
    with pytest.raises(RunError, match="--sbatch rm -rf x: expected an option of sbatch as KEY=VALUE"):
        render(SlurmSpec(STAGE, SlurmOptions(sbatch=("rm -rf x",))))


def test_without_slurm_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(RunError, match="sbatch: no such command here; submit from a login node"):
        submit(SlurmSpec(STAGE), tmp_path)


@pytest.mark.parametrize(
    ("state", "code", "status"),
    [("COMPLETED", "0:0", 0), ("FAILED", "2:0", 2), ("CANCELLED", "0:15", 143), ("TIMEOUT", "0:0", 1), ("FAILED", "75:0", 75)],
)
def test_the_status_of_a_job_is_its_commands(state: str, code: str, status: int) -> None:
    assert _status({"JobState": state, "ExitCode": code}) == status


def test_facts_of_a_job_are_read_with_their_spaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = "JobId=7 JobName=a b UserId=u(1) JobState=PENDING Reason=Nodes required for job are DOWN Dependency=(null)"
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\necho '{said} StdOut=/a folder/x_7.out Power='\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = job_facts("7")
    assert facts["JobName"] == "a b"
    assert facts["Reason"] == "Nodes required for job are DOWN"
    assert facts["StdOut"] == "/a folder/x_7.out"


def test_output_is_shown_once_and_by_whole_characters(tmp_path: Path) -> None:
    path, shown = tmp_path / "job.out", []
    output = _Output(shown.append)
    whole = "loss 1.5 µV\n".encode()
    for content in (whole[:10], whole + b"end\n"):
        path.write_bytes(content)
        output.show(path)
    assert "".join(shown) == "loss 1.5 µV\nend\n"


@pytest.mark.skipif(shutil.which("ip") is None, reason="ip not installed (Debian: iproute2)")
@pytest.mark.parametrize(("interface", "address"), [("lo", "127.0.0.1\n"), ("nowhere0", "")])
def test_ray_takes_the_address_of_the_interface_that_is_named(interface: str, address: str) -> None:
    [function] = re.findall(r"^own_address\(\) \{.*?^\}", render(SlurmSpec(STAGE)), re.DOTALL | re.MULTILINE)
    program = f"interface={interface} container=()\n{function}\nown_address || true"
    done = subprocess.run(["bash", "-eu", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == address
