"""Settings of a `coca` job that is small enough for a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def small_job(simulated_shards: str, tokenizer_folder: str, tmp_path: Path) -> dict[str, Any]:
    """A `coca` job of a few seconds, in fp32 with one thread, so that it repeats to the bit."""
    size = {"sampling_rate_hz": 100, "duration_s": 10, "patch_samples": 50, "width": 32, "layers": 2, "heads": 4}
    return {
        "run": {"folder": str(tmp_path / "run"), "name": "small"},
        "data": {
            "shards": simulated_shards,
            "tokenizer": tokenizer_folder,
            "loader": {"order": {"global_batch": 12, "lanes": 4, "block": 8}},
        },
        "model": {
            "ecg": size,
            "text": {"layers": 1, "heads": 4},
            "decoder": {"layers": 1, "heads": 4},
            "latent_width": 16,
            "context_length": 32,
        },
        "train": {
            "steps": 16,
            "eval_every": 8,
            "engine": {"zero_stage": 2, "precision": "fp32"},
            "optimizer": {"learning_rate": 1e-3, "warmup_steps": 4},
            "checkpoint": {"every_steps": 5},
            "tracking": {"wandb": "offline", "log_every": 4},
        },
        "launch": {"workers": 2, "threads": 1},
    }


def torchrun(workers: int, worker: str, settings_file: Path) -> subprocess.CompletedProcess[str]:
    """Run a worker function on plain processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    command += ["-m", "tests.cluster.run_worker", worker, str(settings_file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=200, check=False)
