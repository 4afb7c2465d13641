"""Make, check and look at shards.

ecgchat shards simulate --out sim --records 2000 --seed 0
ecgchat shards build ptb-xl sim --out s3://bucket/shards
ecgchat shards verify s3://bucket/shards
ecgchat shards inspect s3://bucket/shards
ecgchat shards show s3://bucket/shards simulated-ptb-xl-17 --out ecg.png
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs.config import ConfigError
from shards.build import BuildOptions, build
from shards.dataset import ShardSet
from shards.plan import Source
from shards.record import LEADS
from shards.simulate.ptb_xl import simulate_ptb_xl
from shards.sources.ptb_xl import PtbXl
from shards.verify import verify

SOURCES: dict[str, Callable[[Path, int], Source]] = {"ptb-xl": PtbXl}
"""Name on the command line → reader of the publisher's layout."""

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
    options = BuildOptions(arguments.records_per_shard, arguments.seed, arguments.max_rejected, arguments.workers)
    with progress_bar() as bar:
        task = bar.add_task("building shards, records", total=None)
        manifest = build(
            source,
            arguments.out,
            options,
            on_shard=lambda shard: bar.advance(task, len(shard.rows) + len(shard.rejected)),
            on_plan=lambda shards: bar.update(task, total=sum(len(shard.records) for shard in shards)),
        )
    counts = manifest["counts"]
    console.print(
        f"{counts['records']} records of {counts['patients']} patients in {len(manifest['shards'])} shards in {arguments.out}; "
        f"{counts['absent']} absent, {counts['rejected']} rejected (listed in manifest.json)",
        soft_wrap=True,
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
        console.print(f"{data.index.num_rows} records in {len(data.manifest['shards'])} shards are what the manifest says")
    return 1 if problems else 0


def inspect(arguments: argparse.Namespace) -> None:
    """Print what a data set holds."""
    data = ShardSet.open(arguments.uri)
    manifest = data.manifest
    facts = Table("", "", title=data.store.uri, show_header=False)
    rates = ", ".join(f"{rate:g} Hz" for rate in sorted(set(data.index["fs_hz"].to_pylist())))
    for name, value in {
        "source": manifest["source"] + (" (simulated)" if manifest["simulated"] else ""),
        "records": f"{manifest['counts']['records']} of {manifest['counts']['patients']} patients, {rates}",
        "absent, rejected": f"{manifest['counts']['absent']}, {manifest['counts']['rejected']}",
        "splits": ", ".join(f"{name} {count}" for name, count in manifest["counts"]["split"].items()),
        "shards": f"{len(manifest['shards'])}, {sum(shard['bytes'] for shard in manifest['shards']) / 1e6:.1f} MB",
        "index sha256": data.digest,
        **{
            name: f"{row['min']:g} … {row['median']:g} … {row['max']:g} (min, median, max)"
            for name, row in manifest["statistics"].items()
        },
    }.items():
        facts.add_row(name, str(value))
    console.print(facts)
    labels = Table("label", "records", "share")
    for label, count in sorted(manifest["counts"]["label"].items(), key=lambda item: -item[1]):
        labels.add_row(label, str(count), f"{'█' * round(30 * count / data.index.num_rows)} {count / data.index.num_rows:.1%}")
    console.print(labels)


def show(arguments: argparse.Namespace) -> None:
    """Draw one record with its text, as PNG or in the terminal."""
    from shards.draw import draw_ecg, draw_in_terminal

    data = ShardSet.open(arguments.uri)
    key, ecg, record = data.sample(arguments.key)
    if arguments.out:
        if not Path(arguments.out).absolute().parent.is_dir():
            raise ConfigError(f"--out {arguments.out}: its folder is not there; make it first")
        png = draw_ecg(ecg, record["mv_per_lsb"], record["fs_hz"], title=key, text=record["report"] or "")
        Path(arguments.out).write_bytes(png)
        console.print(f"{key} drawn in {arguments.out}")
        return
    console.print(f"[bold]{key}[/bold]  {record['report'] or ''}", highlight=False)
    width = max(50, min(console.width, 160))
    print(draw_in_terminal(ecg, record["mv_per_lsb"], record["fs_hz"], width, leads=LEADS if arguments.all_leads else ("II",)))


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
    """The command line of all five tools."""
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
    one.add_argument("--records-per-shard", type=int, default=512, help="records planned for a shard (default %(default)s)")
    one.add_argument("--seed", type=int, default=0, help="spreads records over shards (default %(default)s)")
    one.add_argument(
        "--max-rejected", type=float, default=0.01, help="fraction of records that may be rejected (default %(default)s)"
    )
    one.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default %(default)s)")

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the tools and return its status."""
    namespace = parser().parse_args(arguments)
    return namespace.run(namespace) or 0
