"""What a killed process left on the local disk is gone with the next one; what a living one has stays."""

from __future__ import annotations

import subprocess
import sys

from cluster.scratch import scratch_folder

HOLD = """
import sys
from cluster.scratch import scratch_folder
with scratch_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def holder():
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def test_folders_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    dead, left = holder()
    living, used = holder()
    dead.kill()
    dead.wait()
    with scratch_folder() as folder:
        found = {str(path) for path in tmp_path.iterdir()}
        assert found == {used, str(folder)}
        assert left not in found
    living.communicate()
    assert list(tmp_path.iterdir()) == []
