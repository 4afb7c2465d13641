"""The main job on one machine, the way a cluster run goes: `make demo`, or `make demo DATA=path/to/ptb-xl`.

    python -m jobs.demo --out runs/demo [--data DIR] [--store s3://bucket/prefix]

A corpus becomes shards on an S3 server; a job is submitted to a Ray cluster; Ray Train starts two DeepSpeed workers that
stream the shards; the checkpoint is exported and evaluated; `summary.json` and `report.html` say what came out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from cluster import metrics
from cluster.errors import RunError
from cluster.launch.ray_jobs import submit
from cluster.local import object_store, ray_head
from cluster.markers import committed
from jobs import shards as shard_tools
from jobs.errors import one_sentence
from jobs.eval import EvalJob, embed, measure, show
from jobs.export import ExportJob, add_results, export
from jobs.report.page import examples, write_page
from jobs.tokenizer import TokenizerJob, make_tokenizer
from shards.dataset import ShardSet
from shards.storage import Store

PROJECT = Path(__file__).parents[1]
SIMULATED_RECORDS = 4000
SEED = 1

CONFIG = "jobs/configs/coca/demo.yaml"
SMALL_CONFIG = "jobs/configs/coca/demo-small.yaml"
ENOUGH_FOR_CONFIG = 640
"""Training records from which on `CONFIG` has ten steps an epoch."""

WORKERS = 2
console = Console()


@dataclass(frozen=True)
class Options:
    """What the demo was asked for."""

    out: Path
    data: Path | None
    store: str | None
    overrides: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its status."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo", description="The main job, end to end, on this machine.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything (default %(default)s)")
    parser.add_argument("--data", type=Path, help="PTB-XL folder; without it, ECGs are simulated")
    parser.add_argument("--store", help="s3://… of your own, with its keys in the environment; without it, one is started here")
    parser.add_argument("overrides", nargs="*", help="after --, settings of the training job such as --train.steps 50")
    namespace = parser.parse_args(arguments)
    return run(Options(namespace.out.absolute(), namespace.data, namespace.store, namespace.overrides))


def run(options: Options) -> int:
    """All steps in order; what they start is stopped whatever happens."""
    started = time.monotonic()
    if options.data is not None and not options.data.is_dir():
        raise RunError(f"DATA={options.data}: no such folder; name one in PTB-XL's layout, or leave it out to simulate")
    options.out.mkdir(parents=True, exist_ok=True)
    for old in ("store", "coca", "summary.json", "report.html", "ray.log", "s3.log", "job.log"):
        _remove(options.out / old)
    with contextlib.ExitStack() as stack:
        corpus = options.data or _simulate(options.out)
        base = stack.enter_context(_store(options))
        _build(corpus, f"{base}/shards")
        size = make_tokenizer(TokenizerJob(f"{base}/shards", f"{base}/tokenizer", vocabulary=2000))
        console.print(f"tokenizer of {size} tokens in {base}/tokenizer")
        _train(options, base)
        exported = ExportJob(f"{base}/run", f"{base}/export")
        marker = export(exported)
        _heading(f"evaluating {marker.name} on held-out patients")
        split = embed(EvalJob(exported.out, f"{base}/shards"))
        results = measure(split)
        show(results, console)
        _fetch(Store(f"{base}/run"), options.out / "coca")
        add_results(exported, marker, results)
        data = ShardSet.open(f"{base}/shards")
        lines = metrics.read(options.out / "coca" / metrics.FILE)
        summary = summarise(data, options.out / "coca", lines, results, newest_checkpoint(Store(f"{base}/run")))
        (options.out / "summary.json").write_text(json.dumps(summary, indent=1))
        write_page(options.out / "report.html", summary, lines, examples(split, data))
    stage = summary["stages"]["coca"]
    console.print(
        f"\n[bold]{time.monotonic() - started:.0f} s[/bold]: loss {stage['loss_first']:.2f} → {stage['loss_last']:.2f}; "
        f"look at {options.out / 'report.html'} and {options.out / 'summary.json'}"
    )
    return 0


def newest_checkpoint(run: Store) -> str:
    """URI of the newest committed checkpoint of a run."""
    checkpoints = run.child("checkpoints")
    return checkpoints.uri_of(committed(checkpoints)[-1].name)


def summarise(
    data: ShardSet, folder: Path, lines: list[dict[str, Any]], results: dict[str, dict[str, Any]], checkpoint: str
) -> dict[str, Any]:
    """What came out, as `summary.json` holds it; losses are means over the first and last tenth of the steps."""
    trained = [line for line in lines if "train/loss" in line]
    tenth = max(1, len(trained) // 10)
    record = json.loads((folder / "config.json").read_text())
    counts = data.manifest["counts"]
    return {
        "data": {
            "source": data.manifest["source"],
            "simulated": data.simulated,
            "records": counts["records"],
            "absent": counts["absent"],
            "rejected": counts["rejected"],
            "shards": len(data.manifest["shards"]),
        },
        "stages": {
            "coca": {
                "world_size": record["world_size"],
                "zero_stage": record["run"]["train"]["engine"]["zero_stage"],
                "steps": len(trained),
                "samples_per_s": statistics.median(line["perf/samples_per_s"] for line in trained),
                "loss_first": statistics.fmean(line["train/loss"] for line in trained[:tenth]),
                "loss_last": statistics.fmean(line["train/loss"] for line in trained[-tenth:]),
                "checkpoint": checkpoint,
                "wandb_run": json.loads((folder / "wandb_run.json").read_text())["id"],
                "resumed_from": metrics.attempts(folder / metrics.FILE)[-1]["resumed_from"],
            }
        },
        "eval": results,
    }


def _simulate(out: Path) -> Path:
    _heading(f"simulating {SIMULATED_RECORDS} ECGs in PTB-XL's layout")
    folder = out / "simulated"
    shard_tools.main(["simulate", "--out", str(folder), "--records", str(SIMULATED_RECORDS), "--seed", str(SEED)])
    return folder


@contextlib.contextmanager
def _store(options: Options) -> Iterator[str]:
    """Base URI for all that the demo writes: below the user's store, or on a server of its own."""
    if options.store:
        yield f"{options.store.rstrip('/')}/demo-{time.strftime('%Y%m%dT%H%M%S')}"
        return
    with object_store.serve(options.out / "store", log=options.out / "s3.log") as server, _environment(server.environment):
        console.print(f"S3 server on {server.environment['AWS_ENDPOINT_URL']} (rclone serve s3)")
        yield f"{server.uri}/demo"


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _build(corpus: Path, uri: str) -> None:
    _heading(f"building shards in {uri}")
    shard_tools.main(["build", "ptb-xl", str(corpus), "--out", uri, "--records-per-shard", "128"])


def _train(options: Options, base: str) -> None:
    """Submit the training job to a Ray cluster on loopback, and follow it."""
    _heading("starting a Ray head on loopback, with dashboard and token")
    training = ShardSet.open(f"{base}/shards").select("train").index.num_rows
    config = CONFIG if training >= ENOUGH_FOR_CONFIG else SMALL_CONFIG
    settings = [f"--data.shards={base}/shards", f"--data.tokenizer={base}/tokenizer", f"--run.folder={base}/run"]
    command = shlex.join(["python", "-m", "jobs.coca", "--config", config, *settings, *options.overrides])
    with (
        ray_head.serve(options.out / "ray.log", {}, cpus=WORKERS) as head,
        _environment(head.environment),
        (options.out / "job.log").open("w") as log,
    ):
        console.print(f"ray job submit --address {head.address} --working-dir . -- {command}", highlight=False, soft_wrap=True)
        status = submit(head.address, command, PROJECT, write=lambda text: _write(text, log))
    if status:
        raise RunError(f"the training job failed; its output is above and in {options.out / 'job.log'}")


def _write(text: str, log: TextIO) -> None:
    log.write(text)
    sys.stdout.write(text)
    sys.stdout.flush()


def _fetch(run: Store, folder: Path) -> None:
    """Bring what people look at from the run's folder: metrics, configuration, the W&B run."""
    for name in run.list():
        if not name.startswith("checkpoints/"):
            run.download(name, folder / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _heading(text: str) -> None:
    console.print(f"\n[bold]── {text}[/bold]")


if __name__ == "__main__":
    sys.exit(one_sentence(main))
