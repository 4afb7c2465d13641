"""Check what a run is about to rely on, and say of each thing what was found and what to do.

ecgchat doctor
ecgchat doctor --store s3://bucket/runs --launcher slurm
ecgchat doctor --launcher ray --address http://HEAD:8265 --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from cluster.doctor import accelerators, machine, ray, services, slurm, stores
from cluster.doctor.findings import Check, Finding, examine
from cluster.launch.process import prepare_libraries

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
LIMIT_S = 400.0
"""Of one check: DeepSpeed may have to be compiled, which has its own limit."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Look, show, and return 1 where something will not work."""
    parser = argparse.ArgumentParser(prog="ecgchat doctor", description="Check what a run is about to rely on.")
    parser.add_argument("--store", action="append", default=[], metavar="URI", help="where shards or runs lie; again for more")
    parser.add_argument("--launcher", choices=("ray", "slurm"), help="what is to be there; the other is looked at as well")
    parser.add_argument("--address", default="", help="of the Ray dashboard, http://HEAD:8265")
    parser.add_argument("--json", action="store_true", help="a list of findings instead of a table")
    namespace = parser.parse_args(arguments)
    prepare_libraries()
    console = Console(stderr=namespace.json)
    with console.status("") as status:
        planned = checks(namespace.store, namespace.launcher, namespace.address)
        findings = examine(planned, LIMIT_S, lambda name: status.update(f"looking at: {name}"))
    if namespace.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        show(findings, console)
    return int(any(finding.level == "fail" for finding in findings))


def checks(store_uris: Sequence[str], launcher: str | None, address: str) -> list[tuple[str, Check]]:
    """What to look at, the cheap things first."""
    planned: list[tuple[str, Check]] = [
        ("Python", machine.python),
        ("compiler", machine.compiler),
        ("versions", machine.versions),
        ("shared memory", machine.shared_memory),
        ("open files", machine.open_files),
        ("disks", machine.disks),
        ("GPUs", accelerators.gpus),
        ("all-reduce", accelerators.all_reduce),
        ("DeepSpeed op", machine.deepspeed_op),
        ("W&B", services.wandb),
        ("Slurm", lambda: slurm.facts(launcher == "slurm")),
        ("Ray", lambda: ray.facts(launcher == "ray", address)),
    ]
    for uri in store_uris:
        planned += stores.checks(uri)
    return planned


def show(findings: Sequence[Finding], console: Console) -> None:
    """A table, and how many of each there are."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        level = f"[{COLOURS[finding.level]}]{finding.level}[/]"
        advice = f"\n[bold]→ {_plain(finding.advice)}[/]" if finding.advice else ""
        table.add_row(level, _plain(finding.name), _plain(finding.found) + advice)
    console.print(table)
    counts = [sum(finding.level == level for finding in findings) for level in COLOURS]
    console.print("{} ok, {} to look at, {} that will not work".format(*counts))


def _plain(text: str) -> str:
    """Brackets are no mark-up."""
    return text.replace("[", r"\[")


if __name__ == "__main__":
    sys.exit(main())
