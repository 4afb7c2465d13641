"""A driver on the job's Ray cluster that takes a while to commit: `python -m tests.cluster.slurm_driver NOTES WAITS STATUS`.

It notes what it sees, waits to be stopped in its first WAITS starts, and ends with STATUS in the one after them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

COMMIT_S = 2
WAIT_S = 600


def main() -> None:
    """Be a driver."""
    notes, waits, status = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

    def note(words: str) -> None:
        with notes.open("a") as file:
            file.write(words + "\n")

    def stop(number: int, frame: FrameType | None) -> None:
        note("asked to stop")
        time.sleep(COMMIT_S)
        note(f"committed while Ray has {alive()} nodes")
        os._exit(75)

    def alive() -> int:
        return sum(node["Alive"] for node in ray.nodes())

    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, stop)
    import ray

    ray.init(address="auto", log_to_driver=False)
    start = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    note(f"start {start} with {alive()} nodes and {ray.cluster_resources()['CPU']:g} CPUs")
    if start < waits:
        time.sleep(WAIT_S)
    sys.exit(status)


if __name__ == "__main__":
    main()
