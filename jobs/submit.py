"""Send a stage, or any command, to a cluster: check its settings here, write what will run, follow it, end with its status.

    ecgchat submit ray coca --config jobs/configs/coca/ptb-xl.yaml --data.shards s3://… --run.folder s3://… \
        --address http://HEAD:8265 --nodes 2 --gpus-per-node 8
    ecgchat submit ray --address http://HEAD:8265 -- ecgchat shards build …

The settings, with everything filled in, go to the run's folder as `launch/<time>.yaml`; that is the file that the job reads.
Status: the command's own; 75 says that a run was stopped, committed, and goes on when it is submitted again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import yaml

from cluster.console import tell
from cluster.launch.spec import FOLDER, LaunchSpec, refuse_keys, spec_of, time_stamp
from cluster.stopping import STOPPED_STATUS
from jobs.config import ConfigError, parse
from shards.storage import Store

LAUNCHERS = {"ray": "jobs.launchers.ray", "slurm": "jobs.launchers.slurm", "kubernetes": "jobs.launchers.kubernetes"}
STAGES = {"coca": "CocaJob", "align": "AlignJob", "instruct": "InstructJob"}
"""Module of `jobs` → its class of settings."""


@dataclass(frozen=True)
class Submission:
    """What a command line asks for."""

    launcher: str
    spec: LaunchSpec
    options: argparse.Namespace
    settings: str = ""
    """The stage's settings as YAML; empty for a command."""
    settings_file: str = ""
    """Name of the object in the run's folder that the job reads them from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit, follow, and return the job's own exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="ecgchat submit",
        description="Send a stage, or a command after --, to a cluster.",
        epilog="'ecgchat submit LAUNCHER --help' says what each takes.",
    )
    parser.add_argument("launcher", choices=LAUNCHERS, help="where it goes")
    launcher = parser.parse_args(words[:1]).launcher
    words, command = _split(words[1:])
    stage = words.pop(0) if words and not words[0].startswith("-") else ""
    own, rest = _parser(launcher).parse_known_args(words)
    module = importlib.import_module(LAUNCHERS[launcher])
    if getattr(own, "follow", None):
        return int(module.follow(own))
    submission = _checked(launcher, stage, tuple(rest), command, own)
    if own.dry_run:
        carried = {"settings": submission.settings} if getattr(module, "CARRIES_SETTINGS", False) else {}
        print(module.plan(submission.spec, own, **carried))
        if submission.settings and not carried:
            print(f"\n# {submission.spec.run}/{submission.settings_file}\n{submission.settings}", end="")
        return 0
    if submission.settings:
        Store(submission.spec.run).put(submission.settings_file, submission.settings.encode())
    return run(launcher, submission.spec, own)


def run(launcher: str, spec: LaunchSpec, options: argparse.Namespace) -> int:
    """Send what is known to be right, follow it, and return its exit status."""
    status = int(importlib.import_module(LAUNCHERS[launcher]).run(spec, options))
    if status == STOPPED_STATUS and spec.run:
        tell(f"the run was stopped and is committed; 'ecgchat runs resume {spec.run}' goes on from there")
    return status


def again(launch: dict[str, Any]) -> int:
    """Submit once more what a record of the run's folder says, by the same launcher, and follow it."""
    options = argparse.Namespace(**launch["options"], dry_run=False)
    return run(launch["launcher"], spec_of(launch), options)


def _split(words: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """What stands before and after the first `--`."""
    if "--" not in words:
        return words, ()
    where = words.index("--")
    return words[:where], tuple(words[where + 1 :])


def _parser(launcher: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"ecgchat submit {launcher}",
        usage=f"ecgchat submit {launcher} (STAGE --config FILE [--SETTING VALUE …] | -- COMMAND) [options]",
        description=f"STAGE is one of {', '.join(STAGES)}; its own settings are those of 'ecgchat train STAGE --help'.",
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", type=int, default=0, help="machines; else the stage's launch.workers decides")
    parser.add_argument("--gpus-per-node", type=int, default=0, help="one worker for each")
    parser.add_argument("--cpus-per-node", type=int, default=0, help="shared by the workers of a node")
    parser.add_argument("--workers-per-node", type=int, default=0, help="without GPUs: workers on each node, else one")
    parser.add_argument("--env", action="append", default=[], metavar="NAME", help="a variable to pass on; no keys")
    parser.add_argument("--dry-run", action="store_true", help="check, print what would be run, and take no machine")
    importlib.import_module(LAUNCHERS[launcher]).add_options(parser)
    return parser


def _checked(launcher: str, stage: str, rest: tuple[str, ...], command: tuple[str, ...], own: argparse.Namespace) -> Submission:
    """What will be submitted.

    Raises:
        ConfigError: the stage's settings cannot be.
        RunError: the machines cannot be, or a key would be sent along.
    """
    if bool(stage) == bool(command):
        found = f"both ({stage} and a command)" if stage else "neither"
        stages = ", ".join(STAGES)
        raise ConfigError(
            f"submit {launcher}: expected a stage ({stages}) right after it, or a command after --; found {found}"
        )
    machines = {
        "nodes": own.nodes,
        "gpus_per_node": own.gpus_per_node,
        "cpus_per_node": own.cpus_per_node,
        "workers_per_node": own.workers_per_node,
        "environment": tuple(own.env),
    }
    if command:
        if rest:
            raise ConfigError(
                f"{rest[0]}: no such option of 'ecgchat submit {launcher}'; what belongs to the command follows --"
            )
        return Submission(launcher, LaunchSpec("", command, **machines), own)
    if stage not in STAGES:
        raise ConfigError(f"{stage}: no such stage; expected one of {', '.join(STAGES)}")
    return _stage(launcher, LaunchSpec(stage, rest, **machines), own)


def _stage(launcher: str, spec: LaunchSpec, own: argparse.Namespace) -> Submission:
    """The same with the stage's settings read and filled in."""
    twice = [word for word in spec.arguments if spec.nodes and word.partition("=")[0] == "--launch.workers"]
    if twice:
        raise ConfigError("--launch.workers: follows from --nodes and the workers of a node; leave one of them out")
    kind = getattr(importlib.import_module(f"jobs.{spec.stage}"), STAGES[spec.stage])
    job = parse(kind, spec.stage_arguments, f"ecgchat submit {launcher} {spec.stage}")
    settings = json.loads(json.dumps(asdict(job)))
    # The job starts elsewhere, where a relative path means another place.
    settings["run"]["folder"] = run_folder = Store(job.run.folder).uri
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    refuse_keys([text])
    file = f"{FOLDER}/{time_stamp()}.yaml"
    spec = replace(spec, arguments=("--config", f"{run_folder}/{file}"), name=job.run.name, run=run_folder)
    return Submission(launcher, spec, own, text, file)
