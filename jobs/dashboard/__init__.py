"""`ecgchat dashboard`: what a run's numbers look like, as a page of this machine or a workspace at W&B.

ecgchat dashboard runs/demo --html demo.html
ecgchat dashboard s3://bucket/runs/a s3://bucket/runs/b
ecgchat dashboard runs/demo --wandb --entity team
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page of some runs and say where it is."""
    parser = argparse.ArgumentParser(prog="ecgchat dashboard", description="Draw the numbers of runs.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder or URI; several are drawn over one another")
    parser.add_argument("--html", type=Path, default=Path("dashboard.html"), help="the page to write (default: %(default)s)")
    parser.add_argument("--wandb", action="store_true", help="create a workspace at W&B with the same sections too")
    parser.add_argument("--entity", help="whose workspace; your own where it is not given")
    options = parser.parse_args(list(sys.argv[1:] if arguments is None else arguments))

    from jobs.dashboard.page import read_run, write_page

    runs = [read_run(number, place) for number, place in enumerate(options.runs)]
    write_page(options.html, runs)
    print(f"{options.html.absolute()}")
    if options.wandb:
        from jobs.dashboard.workspace import save

        project = runs[0].state.config.get("run", {}).get("train", {}).get("tracking", {}).get("project", "ecgchat")
        print(save(options.entity, project, runs))
    return 0
