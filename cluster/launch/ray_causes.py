"""What ended an attempt under Ray, said once: by the rank that failed first, or by Ray where a process had no word in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ray.train import UserCallback
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from cluster import failure
from cluster.console import say
from cluster.failure import Failure
from cluster.markers import committed
from cluster.memory_advice import memory_sentence
from shards.storage import Store

SHORT_OF_MEMORY = ("OutOfMemoryError", "memory pressure", "running low on memory")
"""What Ray says where its memory monitor, or the kernel, ended a process."""


class FirstCauses(UserCallback):
    """Hears in Ray's controller what each worker failed with, in place of Ray's own traces of all of them.

    Args:
        folder: of the run.
        settings: of the job.
        launched: names this launch.
    """

    def __init__(self, folder: str, settings: dict[str, Any], launched: str) -> None:
        self._folder, self._settings, self._launched = folder, settings, launched

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Say why the attempt ended, once, and leave it in the run's folder."""
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        run = Store(self._folder, failure.BRIEF)
        known = _of_this_attempt(run)
        if known is None or known.cause == "lost_rank":
            known = self._write_lost(run, worker_exceptions) or known
        say(f"an attempt failed: {known.told if known else _reason_of_first(worker_exceptions)}")

    def _write_lost(self, run: Store, errors: Mapping[int, Exception]) -> Failure | None:
        """The worker processes that ended without a word."""
        lost = {rank: error for rank, error in errors.items() if isinstance(error, WorkerHealthCheckFailedError)}
        if not lost:
            return None
        try:
            steps = [marker.step for marker in committed(run.child("checkpoints"))]
        except OSError:
            steps = []
        step = steps[-1] if steps else 0
        rank = min(lost)
        text = str(lost[rank])
        who = f"rank {', '.join(map(str, sorted(lost)[:4]))}, after committed step {step}"
        memory = any(word in text for word in SHORT_OF_MEMORY)
        said = (
            memory_sentence(who, self._settings, len(errors), killed=True)
            if memory
            else f"{who}: its process ended without a word: {ray_reason(text)}"
        )
        at = datetime.now(UTC).isoformat(timespec="seconds")
        cause: failure.Cause = "out_of_memory" if memory else "lost_rank"
        return failure.write(run, Failure("", rank, "", step, said, cause, at=at, launched=self._launched))


def first_cause(error: BaseException, folder: Store) -> str:
    """Why the workers failed for good: what the run's folder says, or the last line of the first worker's failure."""
    known = _of_this_attempt(Store(folder.uri, failure.BRIEF))
    if known is not None:
        return known.told
    return _reason_of_first(getattr(error, "worker_failures", None) or {0: error})


def _of_this_attempt(run: Store) -> Failure | None:
    """What the run's folder says, unless another attempt has followed on it: this one then ended without a word."""
    known = failure.read(run)
    return None if known is None or known.followed_by else known


def _reason_of_first(errors: Mapping[int, BaseException]) -> str:
    first = errors[min(errors)]
    return ray_reason(str(first)) or type(first).__name__


def ray_reason(text: str) -> str:
    """The last line of what Ray says, which names the cause."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
