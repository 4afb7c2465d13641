"""Run one worker function in this process: `torchrun -m tests.cluster.run_worker MODULE:FUNCTION SETTINGS.json`."""

import json
import sys
from pathlib import Path

from cluster.launch.config import LaunchConfig
from cluster.launch.process import run
from jobs.errors import one_sentence


def main() -> None:
    """Load the settings and run."""
    worker, file = sys.argv[1:]
    run(worker, json.loads(Path(file).read_text()), LaunchConfig(threads=1))


if __name__ == "__main__":
    sys.exit(one_sentence(main))
