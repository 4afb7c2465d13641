"""Before Ray gives a running job another number of workers, they are asked to end: no step is then done twice.

Ray alone would end them where they are, and start the new ones from the newest committed checkpoint.
"""

from __future__ import annotations

import time
from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller.state import ResizingState

from cluster.stopping import request_stop
from shards.storage import StorageError, Store

PATIENCE_S = 300
"""For a step and a checkpoint. After that the workers are ended all the same."""


class StopBeforeResize(WorkerGroupCallback, ControllerCallback):
    """Lives in Ray Train's controller.

    Args:
        folder: URI of the run.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._workers: Any = None

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Remember whom to ask."""
        self._workers = worker_group

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Ask, and wait until all have ended."""
        if not isinstance(current_state, ResizingState):
            return
        workers = current_state.scaling_decision.num_workers
        deadline = time.monotonic() + PATIENCE_S
        try:
            request_stop(Store(self._folder), f"the run goes on with {workers} workers")
        except StorageError as error:
            print(f"ecgchat: {workers} workers go on from the newest committed checkpoint: {error}", flush=True)
            return
        while time.monotonic() < deadline and not self._workers.poll_status(timeout=1).finished:
            time.sleep(0.2)
