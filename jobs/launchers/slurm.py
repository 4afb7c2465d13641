"""Send a stage or a command to Slurm, whose job brings its own Ray cluster."""

from __future__ import annotations

import argparse
from dataclasses import fields

from cluster.launch import slurm
from cluster.launch.slurm import SlurmOptions, SlurmSpec
from cluster.launch.spec import LaunchSpec, values_of

CARRIES_SETTINGS = True
"""What is printed is a whole script: a stage's settings are in it."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What it takes on the command line."""
    unset = SlurmOptions()
    parser.add_argument("--time", default=unset.time, help="limit as for sbatch; else the partition's")
    parser.add_argument(
        "--requeue",
        type=int,
        default=unset.requeue,
        metavar="N",
        help=f"times to start again after the time limit, a preemption or a lost node; 0: never, else {unset.requeue}",
    )
    parser.add_argument(
        "--warning-s",
        type=int,
        default=unset.warning_s,
        metavar="S",
        help=f"seconds before the limit to commit and end, {unset.warning_s}; a step and a checkpoint have to fit in",
    )
    for name in ("account", "partition", "qos", "constraint"):
        parser.add_argument(f"--{name}", default="", help="as for sbatch")
    parser.add_argument(
        "--sbatch", action="append", default=[], metavar="KEY[=VALUE]", help="any other option of sbatch, such as mem=0"
    )
    parser.add_argument("--container", default="", metavar="IMAGE", help="run everything in it, by Apptainer")
    parser.add_argument(
        "--env-file", default="", metavar="FILE", help="NAME=VALUE lines with keys for the job; chmod 600, seen by all nodes"
    )
    parser.add_argument("--follow", metavar="ID", help="follow a job that was submitted before")


def plan(spec: LaunchSpec, options: argparse.Namespace, settings: str = "") -> str:
    """The script, as `sbatch` takes it."""
    return slurm.render(SlurmSpec(spec, _options(options), settings))


def run(spec: LaunchSpec, options: argparse.Namespace) -> int:
    """Submit, follow, and return the job's own exit status.

    Raises:
        RunError: there is no Slurm here, it refuses, or it no longer answers.
    """
    values_of(spec.environment)  # sbatch takes the whole environment along: they have to be there
    return slurm.submit_slurm(SlurmSpec(spec, _options(options)))


def follow(options: argparse.Namespace) -> int:
    """Follow a job that was submitted before, and return its exit status.

    Raises:
        RunError: Slurm does not know it, or does not answer.
    """
    return slurm.follow_or_leave(options.follow)


def _options(options: argparse.Namespace) -> SlurmOptions:
    values = {field.name: getattr(options, field.name) for field in fields(SlurmOptions)}
    return SlurmOptions(**{**values, "sbatch": tuple(values["sbatch"])})
