"""The set-up names what is missing before it installs anything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.mark.parametrize(("missing", "sentence"), [("c++", "set-up: c++ not found"), ("make", "set-up: make not found")])
def test_a_missing_tool_is_named_and_nothing_is_made(tmp_path, missing, sentence):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in {"bash", "dirname", "c++", "make"} - {missing}:
        (programs / name).symlink_to(shutil.which(name) or "/bin/true")
    done = subprocess.run(
        [PROJECT / "setup_environment.sh", tmp_path / "venv"],
        env={"PATH": str(programs), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert not (tmp_path / "venv").exists()
