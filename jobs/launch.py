"""What every training job does: check its settings, start its workers, and be one of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from transformers.utils.logging import disable_progress_bar

from cluster import stopping
from cluster.launch import process, ray_train
from cluster.launch.config import LaunchConfig
from cluster.loop import OnReport, TrainConfig, train
from cluster.stage import Stage
from jobs.config import RunConfig, from_settings, parse_with_dry_run
from shards.storage import Store


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Settings that every training job has."""

    run: RunConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    share_text: bool | None = None
    """Let ECG pictures and texts go to W&B; null: for simulated data alone."""


J = TypeVar("J", bound=TrainingJob)
S = TypeVar("S", bound=Stage)


def start(
    kind: type[J],
    make_stage: Callable[[J], S],
    describe: Callable[[S], None],
    worker: str,
    prog: str,
    arguments: Sequence[str] | None,
) -> None:
    """Check the settings, then train, or only say what would be done.

    Args:
        kind: of the job.
        make_stage: reads its data and models; what is wrong with them is met here, before any machine is taken.
        describe: prints the plan of a dry run.
        worker: `package.module:function` that every rank runs.
        prog: how the command is called in its help.
        arguments: of the command line.
    """
    disable_progress_bar()
    request = parse_with_dry_run(kind, arguments, prog)
    Store(request.job.run.folder)
    if request.dry_run:
        describe(make_stage(request.job))
        return
    with stopping.listening():
        make_stage(request.job)
        outcome = launch(worker, asdict(request.job), request.job.launch, request.job.run)
    if outcome["stopped"]:
        sys.exit(_end_early(outcome))
    print(json.dumps(outcome, indent=1))


def _end_early(outcome: dict[str, Any]) -> int:
    """The exit status of a run that was asked to stop; one of its ranks says where it stands."""
    if os.environ.get("RANK", "0") == "0":
        where, reason = f"stopped at step {outcome['committed']}, committed", outcome["stopped"]
        if not outcome["committed"]:
            where = "stopped, no step is committed yet"
        print(f"ecgchat: {where} ({reason}); the same command goes on from there", file=sys.stderr)
    return stopping.STOPPED_STATUS


def run_worker(
    kind: type[J], make_stage: Callable[[J], Stage], settings: dict[str, Any], on_report: OnReport
) -> dict[str, Any]:
    """One rank of a job, in a process group that a launcher made."""
    process.join_deepspeed()
    disable_progress_bar()
    job = from_settings(kind, settings)
    return asdict(train(make_stage(job), job.train, Store(job.run.folder), job.run.name, settings, on_report))


def launch(worker: str, settings: dict[str, Any], config: LaunchConfig, run: RunConfig) -> dict[str, Any]:
    """Run a worker (`package.module:function`) on all ranks and return what rank 0 says at the end."""
    # Through JSON and back: what other machines and checkpoints will read is what runs here.
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    if config.by == "ray":
        return ray_train.run(worker, plain, config, run.name, Store(run.folder))
    return process.run(worker, plain, config)
