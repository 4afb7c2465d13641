"""Send a stage or a command to a Ray cluster that is there."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path

from cluster.console import tell
from cluster.errors import RunError
from cluster.launch import ray_jobs
from cluster.launch.ray_jobs import RayOptions
from cluster.launch.spec import LaunchSpec, record_launch, values_of
from cluster.stopping import INTERRUPTED_STATUS


def add_options(parser: argparse.ArgumentParser) -> None:
    """What it takes on the command line."""
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_API_SERVER_ADDRESS", ""),
        help="of the Ray dashboard, http://HEAD:8265; else RAY_API_SERVER_ADDRESS",
    )
    parser.add_argument("--working-dir", default=".", help="sent along; the command starts in it")
    parser.add_argument("--patience", type=float, default=300, help="seconds after which a head that is silent is lost")
    parser.add_argument("--resubmit", type=int, default=0, help="times to submit again a job that was lost with its head")
    parser.add_argument("--follow", metavar="ID", help="follow a job that was submitted before")


def plan(spec: LaunchSpec, options: argparse.Namespace) -> str:
    """What would be run, for people."""
    runtime = ray_jobs.runtime_environment(_options(options), values_of(spec.environment))
    wanted = {
        "address": options.address,
        "entrypoint": shlex.join(spec.command),
        "runtime_env": runtime,
        "driver": "0 CPUs, 0 GPUs, on the head",
        "resubmit": options.resubmit,
    }
    if spec.nodes:
        wanted["workers"] = (
            f"{spec.workers} on {spec.nodes} nodes, {spec.gpus_per_node} GPUs and {spec.cpus_per_node} CPUs each"
        )
    return json.dumps(wanted, indent=1)


def run(spec: LaunchSpec, options: argparse.Namespace) -> int:
    """Submit, follow, and return the job's own exit status.

    Raises:
        RunError: nobody answers at the address, or it refuses; or the job was lost with its head for good.
    """
    ray_options, submitted = _options(options), list[str]()

    def on_submitted(submission: str) -> None:
        submitted.append(submission)
        kept = {
            name: value for name, value in vars(options).items() if name in ("address", "working_dir", "patience", "resubmit")
        }
        record_launch(spec, "ray", id=submission, options=kept)
        tell(f"submitted {submission} to Ray at {options.address}")

    name = f"{spec.stage}-{spec.name}" if spec.stage else "ecgchat"
    try:
        command, variables = shlex.join(spec.command), values_of(spec.environment)
        return ray_jobs.submit(command, ray_options, name, variables, on_submitted=on_submitted)
    except KeyboardInterrupt:
        if not submitted:
            raise
        return _detach(submitted[-1], options, spec.run)


def follow(options: argparse.Namespace) -> int:
    """Follow a job that was submitted before, and return its exit status.

    Raises:
        RunError: nobody answers at the address, or it does not know the job.
    """
    try:
        status = ray_jobs.follow(options.follow, _options(options))
    except KeyboardInterrupt:
        return _detach(options.follow, options, "")
    if status is None:
        raise RunError(
            f"Ray at {options.address}: no job {options.follow}; it was lost with its head, or the address is another"
        )
    return status


def _options(options: argparse.Namespace) -> RayOptions:
    if not options.address:
        raise RunError(
            "--address: expected the Ray dashboard, http://HEAD:8265, found none; give it, or RAY_API_SERVER_ADDRESS"
        )
    if "@" in options.address:
        raise RunError("--address: expected no user or password in it; Ray lets in who has its token (RAY_AUTH_TOKEN_PATH)")
    return RayOptions(options.address, Path(options.working_dir), options.patience, options.resubmit)


def _detach(submission: str, options: argparse.Namespace, run: str) -> int:
    stop = f"ecgchat runs stop {run}" if run else f"ray job stop --address {options.address} {submission}"
    tell(
        f"the job {submission} goes on without being followed; follow it again with 'ecgchat submit ray --address "
        f"{options.address} --follow {submission}', stop it with '{stop}'"
    )
    return INTERRUPTED_STATUS
