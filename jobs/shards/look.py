"""What a data set holds, seen: verified, counted, drawn."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.text import Text

from jobs.config import ConfigError
from jobs.shards.console import advancing, console, progress_bar
from jobs.shards.histograms import FRAME, NARROWEST, histogram_text, label_text, most_bins, number, printable, quality_sentence
from shards.conversations.loader import read_conversation
from shards.dataset import ShardSet
from shards.histogram import FEW_VALUES, Overview, overview
from shards.record import LEADS, SPLITS
from shards.verify import verify

WIDEST = 100
"""Characters of a line of `inspect`, at the most."""


def verify_shards(arguments: argparse.Namespace) -> int:
    """Read everything again; list what is wrong, and end with 1 if anything is."""
    data = ShardSet.open(arguments.uri)
    with progress_bar() as bar:
        task = bar.add_task("verifying shards", total=len(data.manifest["shards"]))
        advance = advancing(bar, task)
        problems = verify(data, on_shard=lambda name: advance(1))
    for problem in problems:
        console.print(f"[red]✗[/red] {problem}", highlight=False, soft_wrap=True)
    if not problems:
        what = "records" if data.kind == "ecg" else "conversations"
        console.print(f"{data.index.num_rows} {what} in {len(data.manifest['shards'])} shards are what the manifest says")
    return 1 if problems else 0


def inspect(arguments: argparse.Namespace) -> None:
    """Print what a data set holds, with histograms; draw these as a PNG too."""
    _check_out(arguments.out)
    data = ShardSet.open(arguments.uri)
    width = min(max(console.width, NARROWEST), WIDEST)
    seen = overview(data.index, data.manifest["kind"], most_bins(width))
    _print_facts(data, seen, width)
    blocks = [histogram_text(quantity, found, width) for quantity, found in seen.distributions]
    heading = ("label", "records") if data.kind == "ecg" else ("asked for", "conversations")
    blocks.append(label_text(seen.labels, seen.total, heading, width) if seen.labels else Text("no labels"))
    for before, block in zip([Text("\n"), *blocks], blocks, strict=False):
        # What is said in one line stands close to its like.
        _print([Text()] * ("\n" in before.plain or "\n" in block.plain) + [block])
    if arguments.out:
        from jobs.shards.picture import MOST_BINS, draw_overview

        drawn = draw_overview(overview(data.index, data.manifest["kind"], MOST_BINS), _title(data), data.store.uri)
        Path(arguments.out).write_bytes(drawn)
        _print([Text(), Text(f"histograms drawn in {arguments.out}")])


def _print_facts(data: ShardSet, seen: Overview, width: int) -> None:
    """Where a data set is from, how it is divided, and what is wrong with it."""
    manifest, splits = data.manifest, data.manifest["counts"]["split"]
    total = sum(shard["bytes"] for shard in manifest["shards"])
    facts = {
        "source": manifest["source"] + " (simulated)" * data.simulated,
        **_amounts(data),
        "splits": ", ".join(f"{name} {splits[name]:,}" for name in SPLITS if name in splits),
        "left out": f"{manifest['counts']['absent']:,} absent, {manifest['counts']['rejected']:,} rejected",
        "shards": f"{len(manifest['shards']):,}, {total / 1e6:,.1f} MB",
        "index sha256": data.digest,
        **({"quality": quality_sentence(seen.quality, seen.total)} if seen.quality else {}),
    }
    size = max(map(len, facts)) + 2
    _print([Text(data.store.uri, style="bold")])
    for name, value in facts.items():
        lines = textwrap.wrap(printable(value), width - size)
        _print([Text.assemble((f"{name:<{size}}", FRAME), f"\n{'':<{size}}".join(lines))])
    _print(Text(f"! {printable(sentence)}", style="yellow") for sentence in manifest["implausible"])


def _title(data: ShardSet) -> str:
    counts = data.manifest["counts"]
    what = "records" if data.kind == "ecg" else f"conversations about {counts['ecgs']:,} ECGs"
    source = data.manifest["source"] + " (simulated)" * data.simulated
    return f"{source}: {counts['records']:,} {what} of {counts['patients']:,} patients"


def _amounts(data: ShardSet) -> dict[str, str]:
    """How many records, or how many conversations about how many ECGs."""
    counts = data.manifest["counts"]
    patients = f"of {counts['patients']:,} patients, {_rates(data)}"
    if data.kind == "ecg":
        return {"records": f"{counts['records']:,} {patients}"}
    without = pc.sum(pc.equal(data.index["ecgs"], 0)).as_py() or 0
    ranges = {
        name: f"{number(row['min'])} to {number(row['max'])}, median {number(row['median'])}"
        for name, row in data.manifest["statistics"].items()
        if name != "text_length"
    }
    said = {"conversations": f"{counts['records']:,}, {without:,} without an ECG", "ECGs": f"{counts['ecgs']:,} {patients}"}
    return said | ranges


def _rates(data: ShardSet) -> str:
    rates = sorted(rate for rate in pc.unique(data.index["fs_hz"]).to_pylist() if rate is not None)
    if len(rates) > FEW_VALUES:
        return f"{len(rates)} rates from {rates[0]:g} to {rates[-1]:g} Hz"
    return ", ".join(f"{rate:g} Hz" for rate in rates) or "no ECG"


def show(arguments: argparse.Namespace) -> None:
    """Draw one record with its text, or a conversation with its first ECG, as PNG or in the terminal."""
    from shards.draw import NO_REPORT, draw_ecg, draw_in_terminal

    _check_out(arguments.out)
    shown = _shown(ShardSet.open(arguments.uri), arguments.key)
    if arguments.out:
        if shown.ecg is None:
            raise ConfigError(f"--out {arguments.out}: {shown.key} has no ECG to draw; leave --out away to read its text")
        Path(arguments.out).write_bytes(draw_ecg(shown.ecg, shown.mv_per_lsb, shown.fs_hz, title=shown.key, text=shown.text))
        _print([Text(f"{shown.key} drawn in {arguments.out}")])
        return
    lines = [Text(printable(line)) for line in (shown.text or "").splitlines()] or [Text(NO_REPORT, style=FRAME)]
    console.print(Text.assemble((f"{shown.key}  ", "bold"), lines[0]))
    for line in lines[1:]:
        console.print(line)
    if shown.ecg is not None:
        width = max(NARROWEST, min(console.width, 160))
        leads = LEADS if arguments.all_leads else ("II",)
        print(draw_in_terminal(shown.ecg, shown.mv_per_lsb, shown.fs_hz, width, leads=leads))


@dataclass(frozen=True)
class _Shown:
    key: str
    text: str | None
    ecg: NDArray[np.int16] | None
    mv_per_lsb: list[float]
    fs_hz: float


def _shown(data: ShardSet, key: str) -> _Shown:
    if data.kind == "ecg":
        name, ecg, record = data.sample(key)
        return _Shown(name, record["report"] or None, ecg, record["mv_per_lsb"], record["fs_hz"])
    sample = read_conversation(data, key)
    speakers = {"human": "Q", "gpt": "A"}
    text = "\n".join(f"{speakers[turn['from']]}: {turn['value']}" for turn in sample.record["conversations"])
    if not sample.ecgs:
        return _Shown(sample.key, text, None, [], 0.0)
    return _Shown(sample.key, text, sample.ecgs[0], sample.mv_per_lsb[0], sample.record["fs_hz"])


def _check_out(out: Any) -> None:
    """Refuse a file that cannot be written, before anything is read."""
    if out and Path(out).is_dir():
        raise ConfigError(f"--out {out}: is a folder; name a file in it, such as {Path(out) / 'picture.png'}")
    if out and not Path(out).absolute().parent.is_dir():
        raise ConfigError(f"--out {out}: its folder is not there; make it first")


def _print(lines: Iterable[Text]) -> None:
    """Lines as they are: not wrapped, nothing coloured but what says so."""
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
