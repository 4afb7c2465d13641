"""Start the workers of a stage the way its settings say."""

from __future__ import annotations

import json
from typing import Any

from cluster.launch import process, ray_train
from cluster.launch.config import LaunchConfig


def launch(worker: str, settings: dict[str, Any], config: LaunchConfig, name: str) -> dict[str, Any]:
    """Run a worker (`package.module:function`) on all ranks and return what rank 0 says at the end."""
    # Through JSON and back: what other machines and checkpoints will read is what runs here.
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    if config.by == "ray":
        return ray_train.run(worker, plain, config, name)
    return process.run(worker, plain, config)
