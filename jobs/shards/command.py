"""The command line of the shard tools."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from jobs.shards.lengths import count_lengths
from jobs.shards.look import inspect, show, verify_shards
from jobs.shards.make import build_shards, make_conversations, simulate
from jobs.shards.sources import add_signal_steps, add_sources
from shards.conversations.compose import TASKS
from shards.conversations.source import TEXT_ONLY


def parser(prog: str = "ecgchat shards") -> argparse.ArgumentParser:
    """The command line of all tools."""
    root = argparse.ArgumentParser(prog=prog, description="Make, check and look at shards.")
    tools = root.add_subparsers(required=True, metavar="TOOL")

    def tool(name: str, run: Callable[[argparse.Namespace], Any]) -> argparse.ArgumentParser:
        added = tools.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    one = tool("simulate", simulate)
    one.add_argument("--out", required=True, help="folder to write")
    one.add_argument("--records", type=int, default=2000, help="number of ECGs (default %(default)s)")
    one.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default %(default)s)")
    one.add_argument("--rates", type=int, nargs="+", choices=(500, 100), default=[500], help="sampling rates to write, Hz")

    build_options = argparse.ArgumentParser(add_help=False)
    build_options.add_argument("--out", required=True, help="URI of the data set: file://, s3://, or a path")
    _add_build_options(build_options, "spreads records over shards")
    add_signal_steps(build_options)
    add_sources(tool("build", build_shards), build_options)

    one = tool("conversations", make_conversations)
    one.add_argument("uri", metavar="URI", help="of the data set of ECGs")
    one.add_argument("--out", required=True, help="URI of the data set of conversations")
    one.add_argument("--task", choices=TASKS, help="what to ask of each record (default dialogue)")
    one.add_argument("--items", metavar="FILE.json", help="a LLaVA file whose conversations are taken instead")
    one.add_argument(
        "--text-only",
        type=float,
        metavar="F",
        help=f"conversations without an ECG in a dialogue set, as a fraction of its ECGs (default {TEXT_ONLY:g})",
    )
    _add_build_options(one, "decides what is asked, and spreads conversations over shards")

    one = tool("lengths", count_lengths)
    one.add_argument("uri", metavar="URI", help="of the data set of conversations")
    one.add_argument("--encoder", required=True, help="folder, URI or hub id of an exported ECG-CoCa, or an export of align")
    one.add_argument("--llm", help="folder, URI or hub id of the LLM; without it, the one that the export of align names")
    one.add_argument("--pad-token", metavar="TOKEN", help="token to pad with, where the LLM's tokenizer has none for it")
    one.add_argument("--workers", type=int, help="processes; 0: this one alone (default: cores, as far as they have work)")

    one = tool("verify", verify_shards)
    one.add_argument("uri", metavar="URI", help="of the data set")

    one = tool("inspect", inspect)
    one.add_argument("uri", metavar="URI", help="of the data set")
    one.add_argument("--out", metavar="FILE.png", help="draw the histograms there too")

    one = tool("show", show)
    one.add_argument("uri", metavar="URI", help="of the data set")
    one.add_argument("key", metavar="KEY", help="of the sample, as in the index")
    one.add_argument("--out", help="PNG file; without it, the terminal")
    one.add_argument("--all-leads", action="store_true", help="all twelve leads in the terminal, not lead II alone")
    return root


def _add_build_options(one: argparse.ArgumentParser, seed: str) -> None:
    one.add_argument("--records-per-shard", type=int, default=512, help="records planned for a shard (default %(default)s)")
    one.add_argument("--seed", type=int, default=0, help=f"{seed} (default %(default)s)")
    one.add_argument(
        "--max-rejected", type=float, default=0.01, help="fraction of records that may be rejected (default %(default)s)"
    )
    one.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes; 0: this one alone (default %(default)s)"
    )
    one.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="auto",
        help="use the CPUs of a Ray cluster; every machine must see DIR and the store (default: the cluster it runs on)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the tools and return its status."""
    namespace = parser().parse_args(arguments)
    return namespace.run(namespace) or 0
