"""Let a run end after a checkpoint, or go on from its newest one."""

from __future__ import annotations

import argparse
import importlib
import json
import time

from cluster.console import tell
from cluster.errors import RunError
from cluster.stopping import request_stop
from jobs import submit
from jobs.runs.listing import how_to_go_on
from jobs.runs.state import RunState, read_run
from shards.storage import Store

LIMIT_S = 1800.0
POLL_S = 2.0
ASK_AGAIN_S = 30.0
"""An attempt that begins meanwhile takes an older request for one that was meant for another."""


def add_options(parser: argparse.ArgumentParser, word: str) -> None:
    """What `stop` and `resume` take."""
    parser.add_argument("place", metavar="RUN", help="a folder or a URI")
    if word == "stop":
        parser.add_argument("--reason", default="ecgchat runs stop", help="stands in the run's record")
        parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds to wait for the end")
    else:
        parser.add_argument("--address", default="", help="of a Ray dashboard that is not where it was")
        parser.add_argument("--anyway", action="store_true", help="though its processes seem to be at work")


def run(word: str, options: argparse.Namespace) -> int:
    """Stop or resume, and return the exit status.

    Raises:
        RunError: the run does not end in time, is at work, or is none.
    """
    store = Store(options.place)
    return stop(store, options.reason, options.limit) if word == "stop" else resume(store, options.address, options.anyway)


def stop(run: Store, reason: str, limit_s: float = LIMIT_S) -> int:
    """Ask a run to end, and wait until it has.

    Raises:
        RunError: it has not within the limit.
    """
    state = read_run(run)
    if state.state in ("finished", "stopped", "failed"):
        print(f"{run.uri}: {state.state} already; {how_to_go_on(state)}")
        return 0
    begun, asked, told = time.monotonic(), -ASK_AGAIN_S, -1
    while state.state not in ("finished", "stopped", "failed"):
        now = time.monotonic() - begun
        if now > limit_s:
            raise RunError(_does_not_end(state, limit_s))
        if now - asked >= ASK_AGAIN_S:
            request_stop(run, reason)
            asked = now
        if state.done != told:
            told = state.done
            tell(f"{run.uri}: asked to stop; it is known to have done step {told}, and ends after its next one")
        time.sleep(POLL_S)
        state = read_run(run)
    print(f"{run.uri}: {state.state}, committed step {state.committed[-1] if state.committed else 0}; {how_to_go_on(state)}")
    return 0 if state.state != "failed" else 1


def resume(run: Store, address: str = "", anyway: bool = False) -> int:
    """Start a run again as it was started: by the same launcher, or in this process; and return its exit status.

    Raises:
        RunError: its processes seem to be at work, or nothing says how it was started.
    """
    state = read_run(run)
    if state.state == "finished":
        print(f"{run.uri}: {how_to_go_on(state)}")
        return 0
    if state.alive and not anyway:
        raise RunError(
            f"{run.uri}: {state.state}, and two at work on one run would undo each other's steps; stop it with "
            f"'ecgchat runs stop {run.uri}', or say --anyway if you know that its processes are gone"
        )
    if state.launches:
        launch = state.launches[-1]
        if address:
            launch["options"]["address"] = address
        return submit.again(launch)
    if state.stage not in submit.STAGES:
        raise RunError(f"{run.uri}: stage {state.stage!r} is none that 'ecgchat train' knows; start it again as it was started")
    tell(f"{run.uri}: nothing says that it was submitted; going on in this process")
    settings = json.dumps(state.config["run"])
    return int(importlib.import_module(f"jobs.{state.stage}").main(["--config", settings]) or 0)


def _does_not_end(state: RunState, limit_s: float) -> str:
    launch = state.launches[-1] if state.launches else {}
    id_ = launch.get("id", "ID")
    end = {
        "ray": f"ray job stop --address {launch.get('options', {}).get('address', 'http://HEAD:8265')} {id_}",
        "slurm": f"scancel {id_}",
        "kubernetes": f"kubectl delete rayjob {id_}",
    }.get(launch.get("launcher", ""), "ending its processes")
    step = state.committed[-1] if state.committed else 0
    return (
        f"{state.uri}: asked to stop {limit_s:g} s ago, and has not said that it did; its processes may be gone, or a step may "
        f"take longer (--limit); what ends it at once, back to committed step {step}: {end}"
    )
