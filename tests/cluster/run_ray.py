"""The driver of a Ray Train run: `python -m tests.cluster.run_ray MODULE:FUNCTION SETTINGS.json`, as a submitted job."""

import json
import os
import sys
from pathlib import Path

from cluster.launch import ray_train
from cluster.launch.config import LaunchConfig
from cluster.stopping import STOPPED_STATUS
from jobs.errors import one_sentence
from shards.storage import Store


def main() -> int:
    """Load the settings and run."""
    worker, file = sys.argv[1:]
    settings = json.loads(Path(file).read_text())
    Path(file).with_suffix(".pid").write_text(str(os.getpid()))
    launch = LaunchConfig(**{"launcher": "ray", "max_failures": 2, **settings["launch"]})
    outcome = ray_train.run(worker, settings, launch, "small", Store(settings["run"]["folder"]))
    return STOPPED_STATUS if outcome.get("stopped") else 0


if __name__ == "__main__":
    sys.exit(one_sentence(main))
