"""What is to be launched, whoever launches it: a command, the machines for it, and what is kept of the launch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.errors import RunError, at_least
from cluster.keys import is_secret, secret_values
from shards.storage import Store

FOLDER = "launch"
"""In a run's folder: what was launched."""


@dataclass(frozen=True)
class LaunchSpec:
    """A command and the machines that it wants."""

    stage: str
    """A module of `jobs`; empty where `arguments` are a whole command."""
    arguments: tuple[str, ...]
    """What follows the stage, or the whole command. It holds no `launch.` that is derived from the machines."""
    name: str = "run"
    run: str = ""
    """URI of the run's folder; empty where a command has none."""
    nodes: int = 0
    """0 leaves the number of workers to the stage's own configuration."""
    gpus_per_node: int = 0
    cpus_per_node: int = 0
    """0: not stated."""
    workers_per_node: int = 0
    """0: one for each GPU, or one a node where there is none."""
    environment: tuple[str, ...] = ()
    """Names of variables that go from here to the job. Their values are read when it is submitted."""

    def __post_init__(self) -> None:
        at_least(0, nodes=self.nodes, gpus_per_node=self.gpus_per_node, cpus_per_node=self.cpus_per_node)
        at_least(0, workers_per_node=self.workers_per_node)
        if not self.nodes and (self.gpus_per_node or self.cpus_per_node or self.workers_per_node):
            raise RunError("nodes: expected a number beside GPUs, CPUs or workers of a node, found none; add --nodes N")
        if self.gpus_per_node and self.ranks_per_node != self.gpus_per_node:
            raise RunError(
                f"workers_per_node {self.workers_per_node}: expected one for each of {self.gpus_per_node} GPUs; leave it out"
            )
        if self.cpus_per_node and self.cpus_per_node < self.ranks_per_node:
            raise RunError(
                f"cpus_per_node {self.cpus_per_node}: expected one or more for each of {self.ranks_per_node} workers of a node"
            )
        refuse_keys((*(f"{name}=" for name in self.environment), *self.arguments))

    @property
    def ranks_per_node(self) -> int:
        """Workers on each machine."""
        return self.workers_per_node or self.gpus_per_node or 1

    @property
    def workers(self) -> int:
        """Workers on all machines; 0 where the stage's configuration says how many."""
        return self.nodes * self.ranks_per_node

    @property
    def stage_arguments(self) -> tuple[str, ...]:
        """The stage's arguments with the `launch.` settings that the machines mean."""
        if not self.stage or not self.nodes:
            return self.arguments
        derived = [f"--launch.workers={self.workers}", f"--launch.gpus_per_worker={int(self.gpus_per_node > 0)}"]
        if self.cpus_per_node:
            derived.append(f"--launch.cpus_per_worker={self.cpus_per_node // self.ranks_per_node}")
        return (*self.arguments, *derived)

    @property
    def command(self) -> tuple[str, ...]:
        """What the driver runs, in the project's folder."""
        return ("python", "-m", f"jobs.{self.stage}", *self.stage_arguments) if self.stage else self.arguments


WHERE_KEYS_GO = (
    "put it into the environment of the cluster's machines (Ray: before `ray start`; Slurm: the shell of `sbatch`; "
    "Kubernetes: a Secret, --secret NAME)"
)


def refuse_keys(words: Iterable[str]) -> None:
    """Refuse words of a launch that name a key (`NAME=…`, `--env=NAME=…`) or hold the value of one.

    Raises:
        RunError: names the key, never its value.
    """
    values = secret_values()
    for word in words:
        assigned = re.match(r"(?:-+(?:env|e)=)?([A-Za-z_][A-Za-z0-9_]*)=", word)
        name = assigned.group(1) if assigned and is_secret(assigned.group(1)) else None
        name = name or next((name for value, name in values.items() if value in word), None)
        if name:
            raise RunError(f"{name}: a key is not sent along with a job, where others can read it; {WHERE_KEYS_GO}")


def record_launch(spec: LaunchSpec, launcher: str, **facts: Any) -> str | None:
    """Write what was launched into the run's folder, for people and for `ecgchat runs resume`.

    Args:
        spec: what was launched.
        launcher: ray, slurm or kubernetes.
        facts: JSON values that the launcher needs to find it again: ids, address, options. No keys.

    Returns:
        the object's name in the run's folder, None for a command without a run.
    """
    if not spec.run:
        return None
    stamp = time_stamp()
    name = f"{FOLDER}/{stamp}.json"
    content = {"launcher": launcher, "submitted": stamp, **facts, "command": list(spec.command), "spec": asdict(spec)}
    Store(spec.run).put(name, json.dumps(content, indent=1).encode())
    return name


def time_stamp() -> str:
    """Now, as a name that sorts by time: `20261121T191748.123456`, UTC."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")


def values_of(names: Iterable[str]) -> dict[str, str]:
    """Variables of this environment that go to a job.

    Raises:
        RunError: one of them is not set here.
    """
    names = list(names)
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise RunError(f"--env {missing[0]}: expected a variable that is set here, found none; set it, or leave it out")
    return {name: os.environ[name] for name in names}


def launches(run: Store) -> list[dict[str, Any]]:
    """What was launched for a run, oldest first.

    Raises:
        RunError: one of the records cannot be read.
    """
    found = []
    for name in sorted(name for name in run.list(FOLDER) if name.endswith(".json")):
        try:
            found.append(json.loads(run.get(name)))
        except ValueError as error:
            raise RunError(f"{run.uri_of(name)}: not a record of a launch ({error}); remove it") from error
    return found


def spec_of(launch: dict[str, Any]) -> LaunchSpec:
    """The specification that a record holds.

    Raises:
        RunError: it holds none.
    """
    try:
        fields = launch["spec"]
        return LaunchSpec(**{**fields, "arguments": tuple(fields["arguments"]), "environment": tuple(fields["environment"])})
    except (KeyError, TypeError) as error:
        raise RunError(f"record of a launch: expected what was launched under 'spec', found none ({error!r})") from error
