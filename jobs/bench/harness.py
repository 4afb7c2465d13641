"""What the harness costs: beside the bare loop, for checkpoints, and from a kill or a submission to the next step.

    python -m jobs.bench.harness                      # some minutes
    python -m jobs.bench.harness --quick              # within a minute: that it runs, not how fast
    python -m jobs.bench.harness --json harness.json

The bare loop has the same DeepSpeed engine, stage and loader, and neither tracking nor guards, checkpoints or a watch; both
have to come to the same weights before anything is reported. `coca` as in the demo, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.checkpoint import CheckpointConfig
from cluster.launch import process
from cluster.launch.config import LaunchConfig
from cluster.markers import MARKER_END
from jobs.bench.harness_work import MOMENTS, WARM_UP
from jobs.bench.rows import Row, against_cost, show
from jobs.tokenizer import TokenizerJob, make_tokenizer
from shards.build import BuildOptions, build
from shards.simulate.ptb_xl import simulate_ptb_xl
from shards.sources.ptb_xl import PtbXl

PROJECT = Path(__file__).parents[2]
LONGEST_S = 300
"""A process that does nothing for so long never will."""
PARTS = {"worker": "process and imports", "model": "data, run folder", "step 0": "engine, checkpoint", "step 1": "first step"}
"""Moment → what came before it."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    records: int
    global_batch: int
    width: int
    rounds: int
    window: int
    """Steps between two log lines, and between two checkpoints where those are measured."""
    windows: int
    kills: int


FULL = Size(records=256, global_batch=32, width=128, rounds=7, window=10, windows=4, kills=5)
QUICK = Size(records=32, global_batch=4, width=32, rounds=1, window=3, windows=2, kills=1)


class NothingHappensError(RuntimeError):
    """A process of the benchmark ended, or hangs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m jobs.bench.harness", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, for the correctness of the benchmark alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="ecgchat-bench-") as folder:
        settings = make_job(Path(folder), size)
        rows = [*steps(settings, size), *restarts(Path(folder), settings, size)]
    show(rows, "the harness, coca in one process of one thread", options.json)
    return 0


def make_job(folder: Path, size: Size) -> dict[str, Any]:
    """Shards and a tokenizer below a folder, and the settings of a job."""
    simulate_ptb_xl(folder / "simulated", size.records, seed=0)
    shards, tokenizer = str(folder / "shards"), str(folder / "tokenizer")
    build(PtbXl(folder / "simulated", 500), shards, BuildOptions(records_per_shard=16))
    make_tokenizer(TokenizerJob(shards, tokenizer, vocabulary=400))
    ecg = {"sampling_rate_hz": 500, "duration_s": 10, "patch_samples": 100, "width": size.width, "layers": 3, "heads": 4}
    return {
        "run": {"folder": str(folder / "runs"), "name": "bench"},
        "data": {
            "shards": shards,
            "tokenizer": tokenizer,
            "loader": {"order": {"global_batch": size.global_batch, "lanes": 4, "block": 16}},
        },
        "model": {
            "ecg": ecg,
            "text": {"layers": 2, "heads": 4},
            "decoder": {"layers": 1, "heads": 4},
            "latent_width": 64,
            "context_length": 64,
        },
        "train": {
            "steps": WARM_UP + size.window * size.windows + 1,
            "eval_every": 10**9,
            "engine": {"zero_stage": 2, "precision": "fp32"},
            "tracking": {"wandb": "offline", "log_every": size.window},
        },
        "launch": {"launcher": "processes", "threads": 1},
    }


# Steps --------------------------------------------------------------------------------------------------------------------


def steps(settings: dict[str, Any], size: Size) -> list[Row]:
    """The harness beside the bare loop, and what checkpoints take at the default cadence."""
    asked = {**settings, "rounds": size.rounds, "window": size.window}
    found = process.run("jobs.bench.harness_work:compare", asked, LaunchConfig(launcher="processes", threads=1))
    every = CheckpointConfig().every_steps
    return [
        against_cost("a step, against the bare loop", found["harness"], found["bare"], "s", 0.98),
        not_stalled("time not stalled by checkpoints", found["stall"], found["harness"], every),
        Row("training waits for a checkpoint", found["stall"], "s"),
        Row("a checkpoint with its upload beside training", (found["saving"] - found["harness"]) * size.window, "s"),
    ]


def not_stalled(name: str, stall_s: float, step_s: float, every: int) -> Row:
    """The share of time that is left where each so many steps are followed by a stall."""
    share = every * step_s / (every * step_s + stall_s)
    return Row(f"{name}, every {every} steps of {step_s:.2f} s", share, "", ratio=share, aim=0.99)


# Restarts -----------------------------------------------------------------------------------------------------------------


def restarts(folder: Path, settings: dict[str, Any], size: Size) -> list[Row]:
    """From a command, and from a kill and the same command, to the first step's end, with their parts."""
    taken: dict[str, list[dict[str, float]]] = {"from a command to its first step": [], "from a kill to the next step": []}
    for number in range(size.kills):
        train = settings["train"] | {"steps": 10**6, "checkpoint": {"every_steps": 2, "keep_last": 1}}
        run = folder / f"killed-{number}"
        job = settings | {"train": train, "run": {"folder": str(run), "name": "killed"}}
        for name, moments in zip(taken, killed_twice(job, run, folder), strict=True):
            taken[name].append(moments)
    return [row for name, all_parts in taken.items() for row in part_rows(name, all_parts)]


def killed_twice(job: Mapping[str, Any], run: Path, folder: Path) -> list[dict[str, float]]:
    """Start a job, kill it once it has committed a checkpoint, start it again: seconds of each part, of both starts."""
    file = folder / "job.json"
    file.write_text(json.dumps(job))
    begun, parts = time.time(), []
    for number in range(2):
        moments = folder / f"{run.name}-{number}.moments"
        command = [sys.executable, "-m", "jobs.bench.harness_work", str(file)]
        environment = os.environ | {MOMENTS: str(moments), "WANDB_SILENT": "true"}
        with (folder / f"{run.name}-{number}.log").open("wb") as log:
            started = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: "step 1" in said(moments) and bool(list(run.glob(f"checkpoints/*{MARKER_END}"))), started)  # noqa: B023
        finally:
            killed = time.time()
            started.send_signal(signal.SIGKILL)
            started.wait()
        times = said(moments)
        ends = [begun, *(times[moment] for moment in PARTS)]
        parts.append({part: after - before for part, before, after in zip(PARTS.values(), ends[:-1], ends[1:], strict=True)})
        begun = killed
    return parts


def wait_until(reached: Callable[[], bool], started: subprocess.Popen[bytes]) -> None:
    """Until something is so, while a process runs.

    Raises:
        NothingHappensError: it ended, or nothing comes.
    """
    deadline = time.monotonic() + LONGEST_S
    while not reached():
        if started.poll() is not None or time.monotonic() > deadline:
            raise NothingHappensError(f"a process of the benchmark ended with {started.poll()}, or hangs")
        time.sleep(0.05)


def said(file: Path) -> dict[str, float]:
    """Moment → when it first was."""
    times: dict[str, float] = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        moment = json.loads(line)
        times.setdefault(moment["moment"], moment["time"])
    return times


def part_rows(name: str, all_parts: Sequence[Mapping[str, float]]) -> list[Row]:
    """The whole time, and its parts; medians."""
    whole = statistics.median(sum(parts.values()) for parts in all_parts)
    medians = {part: statistics.median(parts[part] for parts in all_parts) for part in all_parts[0]}
    return [Row(name, whole, "s"), *(Row(f"  {part}", value, "s") for part, value in medians.items())]


if __name__ == "__main__":
    sys.exit(main())
