"""`ecgchat runs`: what became of the runs below a folder, and how to end one or let it go on.

    ecgchat runs list FOLDER
    ecgchat runs show RUN
    ecgchat runs stop RUN
    ecgchat runs resume RUN
    ecgchat runs sync RUN

FOLDER and RUN are folders of this machine or URIs (s3://bucket/runs/demo).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "list": ("jobs.runs.listing", "the runs below a folder, and what became of each"),
    "show": ("jobs.runs.listing", "one run: attempts, checkpoints, events, launches, failure, how it goes on"),
    "stop": ("jobs.runs.ending", "let a run commit a checkpoint and end"),
    "resume": ("jobs.runs.ending", "start a run again as it was started, from its newest checkpoint"),
    "sync": ("jobs.runs.sync", "one clean W&B run from a run's metrics.jsonl, whatever was interrupted"),
}
"""Word on the command line → module with `add_options(parser, word)` and `run(word, options)`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="ecgchat runs", description="What became of runs, and ending and resuming them.")
    commands = parser.add_subparsers(dest="word", required=True, metavar="COMMAND")
    for word, (module, about) in COMMANDS.items():
        importlib.import_module(module).add_options(commands.add_parser(word, help=about, description=about), word)
    options = parser.parse_args(words)
    status: int = importlib.import_module(COMMANDS[options.word][0]).run(options.word, options)
    return status
