"""Run a command on a Ray cluster through its Jobs API, follow its output, and end with its status.

    ecgchat submit --address http://HEAD:8265 -- python -m jobs.coca --config jobs/configs/coca/demo.yaml …

The same as `ray job submit --address … --working-dir . -- …`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.launch.ray_jobs import submit


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, follow, and return 0 for success, 1 for failure."""
    parser = argparse.ArgumentParser(prog="ecgchat submit", description="Run a command on a Ray cluster and follow it.")
    parser.add_argument("--address", required=True, help="of the Ray dashboard, http://HEAD:8265")
    parser.add_argument("--working-dir", type=Path, default=Path("."), help="sent along; the command starts in it")
    parser.add_argument("command", nargs="+", help="after --, what to run")
    namespace = parser.parse_args(arguments)

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    return submit(namespace.address, shlex.join(namespace.command), namespace.working_dir, write=write)
