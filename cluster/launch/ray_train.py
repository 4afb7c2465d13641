"""Start a job's workers with Ray Train, again and again from the newest committed checkpoint when one is lost."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster import failure, stopping
from cluster.errors import AgreedError, RunError, SilentError
from cluster.launch.config import LaunchConfig
from cluster.launch.process import backend, load, prepare_process
from cluster.launch.versions import refuse_other_versions, versions
from cluster.progress import HOST
from cluster.scratch import scratch_folder
from shards.storage import Store


def run(worker: str, settings: dict[str, Any], launch: LaunchConfig, name: str, folder: Store) -> dict[str, Any]:
    """Run a worker (`package.module:function`) on the ranks of a Ray Train worker group.

    Ray's own checkpoints are not used: a restarted worker finds the newest committed one by itself.

    Args:
        worker: what every rank calls.
        settings: of the job.
        launch: how many ranks, on what.
        name: of the run.
        folder: of the run; what this process is asked by a signal is asked of the workers there.

    Raises:
        RunError: the workers failed for good; the first cause, in one sentence.
    """
    _tell_ray(launch)
    import ray
    from ray.train.v2.api.exceptions import TrainingFailedError

    from cluster.launch.ray_causes import first_cause

    ray.init(address="auto", ignore_reinit_error=True, log_to_driver=True)
    _require_resources(ray.cluster_resources(), launch)
    with scratch_folder() as storage:
        trainer = _trainer(worker, settings, launch, f"{name}-{time.time_ns():x}", folder, storage)
        try:
            # Not in this thread, where Ray would end the workers at once on Ctrl-C.
            with stopping.listening(), ThreadPoolExecutor(1, "ray-train") as pool:
                outcome = stopping.wait_forwarding(pool.submit(trainer.fit), folder).return_value
        except TrainingFailedError as error:
            raise RunError(
                f"the workers failed more than launch.max_failures {launch.max_failures} times: {first_cause(error, folder)}"
            ) from error
    if "error" in outcome:
        raise RunError(outcome["error"])
    return dict(outcome["result"])


def _tell_ray(launch: LaunchConfig) -> None:
    """What Ray reads from the environment when it is first imported; what the user set there stays."""
    told = {
        # It would leave out a line that differs from another in its numbers alone.
        "RAY_DEDUP_LOGS": "0",
        # Ray Train would print each line of a worker a second time, through its logger.
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        # How long it waits for the places that it counts on. It may count on those of a lost node for 20 s: fewer ranks then
        # begin soon. A fixed number has to wait in any case, and then waits again.
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20" if launch.min_workers else "600",
    }
    for name, value in told.items():
        os.environ.setdefault(name, value)


def _trainer(worker: str, settings: dict[str, Any], launch: LaunchConfig, launched: str, folder: Store, storage: Path) -> Any:
    """Ray Train's, for one launch and the attempts that follow it."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from cluster.launch.ray_causes import FirstCauses
    from cluster.launch.ray_network import NodeNetworkConfig
    from cluster.launch.ray_resize import StopBeforeResize

    resources = {"CPU": launch.cpus_per_worker} | ({"GPU": launch.gpus_per_worker} if launch.gpus_per_worker else {})
    return TorchTrainer(
        train_worker,
        train_loop_config={
            "worker": worker,
            "settings": settings,
            "launch": dataclasses.asdict(launch),
            "launched": launched,
            "versions": versions(),
        },
        torch_config=NodeNetworkConfig(backend="nccl" if launch.gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(launch.min_workers, launch.workers) if launch.min_workers else launch.workers,
            elastic_resize_monitor_interval_s=launch.resize_every_s,
            use_gpu=launch.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            # Ray would take an older run's state for this one's if they shared a name.
            name=launched,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=launch.max_failures),
            callbacks=[StopBeforeResize(folder.uri), FirstCauses(folder.uri, settings, launched)],
        ),
    )


def train_worker(job: dict[str, Any]) -> dict[str, Any]:
    """One rank: what Ray Train calls in each worker process."""
    import ray.train

    launch = LaunchConfig(**job["launch"])
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    # Where Ray prints the trace of each worker; the first cause's is kept in the run's folder.
    logging.getLogger("ray.train.v2._internal.util").setLevel(logging.CRITICAL)
    prepare_process(launch)
    try:
        with stopping.noticing(preemption_notice), failure.first_cause(job["settings"], job["launched"]):
            _require_gpu(launch)
            refuse_other_versions(job["versions"])
            return {"result": load(job["worker"])(job["settings"], on_report=lambda values: ray.train.report(values))}
    except AgreedError as error:
        # Raised, Ray would start the workers again to meet the same error.
        return {"error": str(error)}
    except SilentError as error:
        if error.final:
            return {"error": str(error)}
        raise


def _require_gpu(launch: LaunchConfig) -> None:
    """A worker without the GPU that it was given fails alone; the others wait for it in vain until Ray ends them."""
    if launch.gpus_per_worker and backend() != "nccl":
        raise RunError(
            f"launch.gpus_per_worker {launch.gpus_per_worker}: a worker on {HOST} sees no GPU; set it to 0, or mend the driver "
            "there"
        )


def preemption_notice() -> str | None:
    """Which nodes of this run Ray will lose soon, as far as this worker was told.

    `ray.train.get_preemption_info` would say the same, but is a barrier of all workers through an actor, which each step would
    pay; the ranks agree anyway. Ray's watcher calls `mark_preempt` on each worker, which leaves its notice here.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    info = get_train_context().preemption_context.preemption_info
    return f"a preemption notice for node {', '.join(info.preempted_node_ids)}" if info else None


def _require_resources(found: dict[str, float], launch: LaunchConfig) -> None:
    """Refuse a job that the cluster could never place: Ray would wait for a node that does not come."""
    setting = "launch.min_workers" if launch.min_workers else "launch.workers"
    for resource, each in (("CPU", launch.cpus_per_worker), ("GPU", launch.gpus_per_worker)):
        wanted = launch.fewest * each
        if wanted > found.get(resource, 0):
            raise RunError(
                f"{setting} {launch.fewest} want {wanted:g} {resource}s, the Ray cluster has {found.get(resource, 0):g}; "
                f"lower {setting}, or add nodes"
            )
