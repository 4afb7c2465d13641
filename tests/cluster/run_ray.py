"""The driver of a Ray Train run: `python -m tests.cluster.run_ray MODULE:FUNCTION SETTINGS.json`, as a submitted job."""

import json
import sys
from pathlib import Path

from cluster.launch import ray_train
from cluster.launch.config import LaunchConfig
from jobs.errors import one_sentence


def main() -> None:
    """Load the settings and run."""
    worker, file = sys.argv[1:]
    settings = json.loads(Path(file).read_text())
    ray_train.run(worker, settings, LaunchConfig(**{"launcher": "ray", "max_failures": 2, **settings["launch"]}), "small")


if __name__ == "__main__":
    sys.exit(one_sentence(main))
