"""One attempt at a time has a run: the one that began last.

    RUN/attempt.json     {"attempt": "20261120T101500-a1b2c3", "host": "node-7"}

An attempt that was thought dead, or a job that was submitted twice, ends before it saves again. Neither does harm before: the
files of a checkpoint lie under their attempt's id.
"""

from __future__ import annotations

import json

from cluster.errors import RunError
from cluster.progress import HOST
from shards.storage import MissingObject, Store

OWNER = "attempt.json"


def take(run: Store, attempt: str) -> None:
    """Say that an attempt begins; called by its rank 0."""
    run.put(OWNER, json.dumps({"attempt": attempt, "host": HOST}).encode())


def require(run: Store, attempt: str) -> None:
    """Refuse to go on where another attempt began since.

    Raises:
        RunError: names it.
    """
    try:
        owner = json.loads(run.get(OWNER))
        other, host = owner["attempt"], owner["host"]
    except (MissingObject, ValueError, KeyError, TypeError):
        return
    if other != attempt:
        raise RunError(
            f"{run.uri}: attempt {other} began on {host} while this one ran, and has the run now; this one ends; "
            "'ecgchat runs stop' ends that one"
        )
