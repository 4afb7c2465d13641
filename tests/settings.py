"""Settings of a `coca` job that is small enough for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def small_settings(shards: str, tokenizer: str, run_folder: Path) -> dict[str, Any]:
    """A job of a few seconds, in fp32 with one thread, so that it repeats to the bit."""
    size = {"sampling_rate_hz": 100, "duration_s": 10, "patch_samples": 50, "width": 32, "layers": 2, "heads": 4}
    return {
        "run": {"folder": str(run_folder), "name": "small"},
        "data": {
            "shards": shards,
            "tokenizer": tokenizer,
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
