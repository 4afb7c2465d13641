"""A small `coca` job, and plain processes to run it on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.settings import small_settings

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def small_job(simulated_shards: str, tokenizer_folder: str, tmp_path: Path) -> dict[str, Any]:
    """A `coca` job of a few seconds on two workers."""
    return small_settings(simulated_shards, tokenizer_folder, tmp_path / "run")


def torchrun(workers: int, worker: str, settings_file: Path) -> subprocess.CompletedProcess[str]:
    """Run a worker function on plain processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    command += ["-m", "tests.cluster.run_worker", worker, str(settings_file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=200, check=False)
