"""Make, check and look at shards.

ecgchat shards simulate --out sim --records 2000 --seed 0
ecgchat shards build ptb-xl sim --out s3://bucket/shards
ecgchat shards conversations s3://bucket/shards --out s3://bucket/dialogues --task dialogue
ecgchat shards conversations s3://bucket/shards --out s3://bucket/instruct --items ecg_instruct_45k.json
ecgchat shards verify s3://bucket/shards
ecgchat shards inspect s3://bucket/shards
ecgchat shards show s3://bucket/shards simulated-ptb-xl-17 --out ecg.png
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs.config import ConfigError
from shards.build import BuildOptions, build
from shards.conversations.compose import TASKS, Task
from shards.conversations.loader import read_conversation
from shards.conversations.source import TEXT_ONLY, ComposedConversations, LlavaConversations
from shards.dataset import ShardSet
from shards.plan import Source
from shards.record import LEADS
from shards.simulate.ptb_xl import simulate_ptb_xl
from shards.sources.ptb_xl import PtbXl
from shards.verify import verify

SOURCES: dict[str, Callable[[Path, int], Source]] = {"ptb-xl": PtbXl}
"""Name on the command line → reader of the publisher's layout."""

NAMES_SHOWN = 20
"""Items without a record that are named on the terminal; the manifest names all."""

console = Console()


def simulate(arguments: argparse.Namespace) -> None:
    """Write simulated 12-lead ECGs in PTB-XL's native layout."""
    if arguments.records < 1:
        raise ConfigError(f"--records {arguments.records}: expected at least 1 record")
    with progress_bar() as bar:
        task = bar.add_task("simulating records", total=arguments.records)
        try:
            simulate_ptb_xl(
                Path(arguments.out),
                arguments.records,
                arguments.seed,
                lambda done: bar.update(task, completed=done),
                arguments.rates,
            )
        except FileExistsError as error:
            raise ConfigError(str(error)) from error
    console.print(f"{arguments.records} simulated records in {arguments.out}")


def build_shards(arguments: argparse.Namespace) -> None:
    """Turn a corpus in its publisher's layout into shards, an index and a manifest."""
    source = SOURCES[arguments.source](Path(arguments.folder), arguments.rate)
    manifest = _build(source, arguments, "building shards, records")
    counts = manifest["counts"]
    console.print(
        f"{counts['records']} records of {counts['patients']} patients in {len(manifest['shards'])} shards in {arguments.out}; "
        f"{counts['absent']} absent, {counts['rejected']} rejected (listed in manifest.json)",
        soft_wrap=True,
    )


def make_conversations(arguments: argparse.Namespace) -> None:
    """Make a data set of conversations from a built data set of ECGs."""
    if arguments.items and (arguments.task or arguments.text_only is not None):
        raise ConfigError("--items: its conversations are taken as they are; leave --task and --text-only away")
    task: Task = arguments.task or "dialogue"
    if arguments.text_only is not None and task != "dialogue":
        raise ConfigError(f"--text-only: only --task dialogue asks without an ECG, found --task {task}; leave one away")
    text_only = TEXT_ONLY if arguments.text_only is None else arguments.text_only
    data = ShardSet.open(arguments.uri)
    source: Source = (
        LlavaConversations(data, Path(arguments.items))
        if arguments.items
        else ComposedConversations(data, task, arguments.seed, text_only)
    )
    manifest = _build(source, arguments, "making conversations")
    counts = manifest["counts"]
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts["label"].items())
    console.print(
        f"{counts['records']} conversations about {counts['ecgs']} ECGs of {counts['patients']} patients in "
        f"{len(manifest['shards'])} shards in {arguments.out}; {counts['absent']} absent, {counts['rejected']} rejected "
        "(listed in manifest.json)" + (f"; asked for: {kinds}" if kinds else ""),
        soft_wrap=True,
        highlight=False,
    )
    if arguments.items and manifest["absent"]:
        names = [item["record_id"] for item in manifest["absent"]]
        more = f" and {len(names) - NAMES_SHOWN} more, listed in manifest.json" if len(names) > NAMES_SHOWN else ""
        shown = ", ".join(names[:NAMES_SHOWN])
        console.print(f"items whose ECG is not in {arguments.uri}: {shown}{more}", soft_wrap=True, highlight=False)


def _build(source: Source, arguments: argparse.Namespace, doing: str) -> dict[str, Any]:
    options = BuildOptions(arguments.records_per_shard, arguments.seed, arguments.max_rejected, arguments.workers)
    with progress_bar() as bar:
        task = bar.add_task(doing, total=None)
        return build(
            source,
            arguments.out,
            options,
            on_shard=lambda shard: bar.advance(task, len(shard.rows) + len(shard.rejected)),
            on_plan=lambda shards: bar.update(task, total=sum(len(shard.records) for shard in shards)),
        )


def verify_shards(arguments: argparse.Namespace) -> int:
    """Read everything again; list what is wrong, and end with 1 if anything is."""
    data = ShardSet.open(arguments.uri)
    with progress_bar() as bar:
        task = bar.add_task("verifying shards", total=len(data.manifest["shards"]))
        problems = verify(data, on_shard=lambda name: bar.advance(task))
    for problem in problems:
        console.print(f"[red]✗[/red] {problem}", highlight=False, soft_wrap=True)
    if not problems:
        what = "records" if data.kind == "ecg" else "conversations"
        console.print(f"{data.index.num_rows} {what} in {len(data.manifest['shards'])} shards are what the manifest says")
    return 1 if problems else 0


def inspect(arguments: argparse.Namespace) -> None:
    """Print what a data set holds."""
    data = ShardSet.open(arguments.uri)
    manifest = data.manifest
    facts = Table("", "", title=data.store.uri, show_header=False)
    rates = ", ".join(f"{rate:g} Hz" for rate in data.rates) or "no ECG"
    counts = manifest["counts"]
    records = {"records": f"{counts['records']} of {counts['patients']} patients, {rates}"}
    if data.kind == "conversation":
        without = data.index["ecgs"].to_pylist().count(0)
        records = {
            "conversations": f"{counts['records']}, {without} without an ECG",
            "ECGs": f"{counts['ecgs']} of {counts['patients']} patients, {rates}",
        }
    for name, value in {
        "source": manifest["source"] + (" (simulated)" if manifest["simulated"] else ""),
        **records,
        "absent, rejected": f"{counts['absent']}, {counts['rejected']}",
        "splits": ", ".join(f"{name} {count}" for name, count in counts["split"].items()),
        "shards": f"{len(manifest['shards'])}, {sum(shard['bytes'] for shard in manifest['shards']) / 1e6:.1f} MB",
        "index sha256": data.digest,
        **{
            name: f"{row['min']:g} … {row['median']:g} … {row['max']:g} (min, median, max)"
            for name, row in manifest["statistics"].items()
        },
    }.items():
        facts.add_row(name, str(value))
    console.print(facts)
    labels = Table("label", "records", "share") if data.kind == "ecg" else Table("asked for", "conversations", "share")
    for label, count in sorted(counts["label"].items(), key=lambda item: -item[1]):
        labels.add_row(label, str(count), f"{'█' * round(30 * count / data.index.num_rows)} {count / data.index.num_rows:.1%}")
    console.print(labels)


def show(arguments: argparse.Namespace) -> None:
    """Draw one record with its text, or a conversation with its first ECG, as PNG or in the terminal."""
    from shards.draw import draw_ecg, draw_in_terminal

    shown = _shown(ShardSet.open(arguments.uri), arguments.key)
    if arguments.out:
        if not Path(arguments.out).absolute().parent.is_dir():
            raise ConfigError(f"--out {arguments.out}: its folder is not there; make it first")
        if shown.ecg is None:
            raise ConfigError(f"--out {arguments.out}: {shown.key} has no ECG to draw; leave --out away to read its text")
        Path(arguments.out).write_bytes(draw_ecg(shown.ecg, shown.mv_per_lsb, shown.fs_hz, title=shown.key, text=shown.text))
        console.print(f"{shown.key} drawn in {arguments.out}")
        return
    console.print(f"[bold]{shown.key}[/bold]", end="  ", highlight=False)
    console.print(shown.text, highlight=False, markup=False)
    if shown.ecg is not None:
        width = max(50, min(console.width, 160))
        leads = LEADS if arguments.all_leads else ("II",)
        print(draw_in_terminal(shown.ecg, shown.mv_per_lsb, shown.fs_hz, width, leads=leads))


@dataclass(frozen=True)
class _Shown:
    key: str
    text: str
    ecg: NDArray[np.int16] | None
    mv_per_lsb: list[float]
    fs_hz: float


def _shown(data: ShardSet, key: str) -> _Shown:
    if data.kind == "ecg":
        name, ecg, record = data.sample(key)
        return _Shown(name, record["report"] or "", ecg, record["mv_per_lsb"], record["fs_hz"])
    sample = read_conversation(data, key)
    speakers = {"human": "Q", "gpt": "A"}
    text = "\n".join(f"{speakers[turn['from']]}: {turn['value']}" for turn in sample.record["conversations"])
    if not sample.ecgs:
        return _Shown(sample.key, text, None, [], 0.0)
    return _Shown(sample.key, text, sample.ecgs[0], sample.mv_per_lsb[0], sample.record["fs_hz"])


def progress_bar() -> Progress:
    """Bar, count and time left on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def parser(prog: str = "ecgchat shards") -> argparse.ArgumentParser:
    """The command line of all six tools."""
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

    one = tool("build", build_shards)
    one.add_argument("source", choices=sorted(SOURCES), help="layout of DIR")
    one.add_argument("folder", metavar="DIR", help="where the corpus lies")
    one.add_argument("--out", required=True, help="URI of the data set: file://, s3://, or a path")
    one.add_argument("--rate", type=int, default=500, help="sampling rate to take, Hz (default %(default)s)")
    _add_build_options(one, "spreads records over shards")

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

    one = tool("verify", verify_shards)
    one.add_argument("uri", metavar="URI", help="of the data set")

    one = tool("inspect", inspect)
    one.add_argument("uri", metavar="URI", help="of the data set")

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
    one.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default %(default)s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the tools and return its status."""
    namespace = parser().parse_args(arguments)
    return namespace.run(namespace) or 0
