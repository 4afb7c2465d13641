"""What came out of a pipeline, as `summary.json` holds it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from cluster import metrics
from cluster.markers import committed
from shards.dataset import ShardSet
from shards.storage import Store


def data_facts(data: ShardSet) -> dict[str, Any]:
    """How many records there are, and where they come from."""
    counts = data.manifest["counts"]
    return {
        "source": data.manifest["source"],
        "simulated": data.simulated,
        "records": counts["records"],
        "absent": counts["absent"],
        "rejected": counts["rejected"],
        "shards": len(data.manifest["shards"]),
    }


def stage_facts(folder: Path, checkpoint: str) -> dict[str, Any]:
    """How a stage's training went; losses are means over the first and last tenth of the steps.

    Args:
        folder: local copy of the run's folder.
        checkpoint: URI of its newest checkpoint.
    """
    trained = [line for line in metrics.read(folder / metrics.FILE) if "train/loss" in line]
    tenth = max(1, len(trained) // 10)
    record = json.loads((folder / "config.json").read_text())
    return {
        "world_size": record["world_size"],
        "zero_stage": record["run"]["train"]["engine"]["zero_stage"],
        "steps": len(trained),
        **_rates(trained),
        "loss_first": statistics.fmean(line["train/loss"] for line in trained[:tenth]),
        "loss_last": statistics.fmean(line["train/loss"] for line in trained[-tenth:]),
        "checkpoint": checkpoint,
        "wandb_run": json.loads((folder / "wandb_run.json").read_text())["id"],
        "resumed_from": metrics.attempts(folder / metrics.FILE)[-1]["resumed_from"],
    }


def newest_checkpoint(run: Store) -> str:
    """URI of the newest committed checkpoint of a run."""
    checkpoints = run.child("checkpoints")
    return checkpoints.uri_of(committed(checkpoints)[-1].name)


def _rates(trained: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the steps; tokens where the stage counts them."""
    found = {}
    for name in ("samples_per_s", "tokens_per_s"):
        values = [line[f"perf/{name}"] for line in trained if f"perf/{name}" in line]
        if values:
            found[name] = statistics.median(values)
    return found
