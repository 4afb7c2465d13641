"""`ecgchat runs sync`: one clean W&B run from a run's `metrics.jsonl`, whatever was interrupted.

ecgchat runs sync s3://bucket/runs/demo                 into its folder wandb/, for `wandb sync` later
ecgchat runs sync s3://bucket/runs/demo --out /tmp/demo into a folder of this machine
ecgchat runs sync s3://bucket/runs/demo --online        and to W&B
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from cluster import sync
from cluster.errors import RunError
from shards.storage import Store


def add_options(parser: argparse.ArgumentParser, word: str) -> None:
    """What the command takes."""
    del word
    parser.add_argument("run", help="the run's folder or URI")
    parser.add_argument("--out", type=Path, help="local folder to make, absent or empty, in the place of RUN/wandb")
    parser.add_argument("--online", action="store_true", help="give it to W&B too; wants WANDB_API_KEY")


def run(word: str, options: argparse.Namespace) -> int:
    """Rebuild the W&B run and say what was done.

    Raises:
        RunError: there is no run, something lies where it is to be written, or W&B does not take it.
    """
    del word
    store = Store(options.run)
    if options.out and options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise RunError(f"--out {options.out}: expected a folder that is absent or empty, found something in it; name another")
    with tempfile.TemporaryDirectory(prefix="ecgchat-sync-") as scratch:
        out = options.out or Path(scratch)
        done = sync.rebuild(store, out)
        if options.out is None:
            sync.keep(store, out)
        print(f"{done}: {options.out or store.uri_of('wandb')}")
        if options.online:
            sync.send(out)
            print("given to W&B")
    return 0
