"""Data sets made: from a simulation, from a corpus, from another data set."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from jobs.config import ConfigError
from jobs.shards.console import advancing, console, progress_bar
from jobs.shards.sources import prepared_source
from shards.build import BuildOptions, build
from shards.conversations.compose import Task
from shards.conversations.source import TEXT_ONLY, ComposedConversations, LlavaConversations
from shards.dataset import ShardSet
from shards.plan import PlannedShard, Source
from shards.shard_writer import BuiltShard
from shards.simulate.ptb_xl import simulate_ptb_xl
from shards.workers import BuildShard, Runner, in_processes, in_this_process

NAMES_SHOWN = 20
"""Items without a record that are named on the terminal; the manifest names all."""


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
    source = prepared_source(arguments)
    manifest = _build(source, arguments, "building shards, records")
    counts = manifest["counts"]
    console.print(
        f"{counts['records']} records of {counts['patients']} patients in {len(manifest['shards'])} shards in {arguments.out}; "
        f"{counts['absent']} absent, {counts['rejected']} rejected (listed in manifest.json)",
        soft_wrap=True,
    )
    for sentence in manifest["implausible"]:
        console.print(f"[yellow]![/yellow] {sentence}", highlight=False, soft_wrap=True)


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
    options = BuildOptions(arguments.records_per_shard, arguments.seed, arguments.max_rejected)
    with progress_bar() as bar:
        task = bar.add_task(doing, total=None)
        advance = advancing(bar, task)
        return build(
            source,
            arguments.out,
            options,
            _runner(arguments),
            on_shard=lambda shard: advance(shard.rows.num_rows + len(shard.rejected)),
            on_plan=lambda shards: bar.update(task, total=sum(len(shard.records) for shard in shards)),
        )


def _runner(arguments: argparse.Namespace) -> Runner:
    if arguments.ray is not None:
        return partial(_on_ray, arguments.ray)
    if arguments.workers < 0:
        raise ConfigError(f"--workers {arguments.workers}: expected a number of processes, or 0 for this one alone")
    return in_processes(arguments.workers) if arguments.workers else in_this_process


def _on_ray(address: str, build_shard: BuildShard, shards: Iterable[PlannedShard]) -> Iterator[BuiltShard]:
    """A runner on the CPUs of a Ray cluster."""
    from cluster.launch.ray_tasks import run_tasks

    # The second time in a process of its own, which a record may end.
    once, again = (partial(_build_one, runner, build_shard) for runner in (in_this_process, in_processes(1)))
    return run_tasks(once, shards, again, address)


def _build_one(runner: Runner, build_shard: BuildShard, shard: PlannedShard) -> BuiltShard:
    [built] = runner(build_shard, [shard])
    return built
