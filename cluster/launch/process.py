"""Start a job's worker in this process: alone, or as one of those that torchrun started.

    python -m jobs.coca --config …
    torchrun --nproc-per-node 8 -m jobs.coca --config …
"""

from __future__ import annotations

import importlib
import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

from cluster.errors import RunError
from cluster.launch.config import LaunchConfig

Worker = Callable[..., dict[str, Any]]
"""Called on each rank with the job's settings as a dictionary and `on_report`; returns what rank 0 has to say at the end."""


def run(worker: str, settings: dict[str, Any], launch: LaunchConfig) -> dict[str, Any]:
    """Run a worker (`package.module:function`) in the process group of this process.

    Raises:
        RunError: more workers are wanted than processes are there.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if "WORLD_SIZE" not in os.environ and launch.workers > 1:
        raise RunError(
            f"launch.workers {launch.workers}: this is one process without Ray; start it with "
            f"'torchrun --nproc-per-node {launch.workers} -m …', set RAY_ADDRESS, or set launch.workers 1"
        )
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    prepare_process(launch)
    import torch.distributed as dist

    # A single process meets nobody: port 0 lets the system choose.
    method = "env://" if size > 1 else "tcp://127.0.0.1:0"
    dist.init_process_group(backend(), init_method=method, rank=int(os.environ["RANK"]), world_size=size)
    try:
        return load(worker)(settings, on_report=lambda values: None)
    finally:
        dist.destroy_process_group()


def prepare_process(launch: LaunchConfig) -> None:
    """What has to be set before the first import of DeepSpeed and the first kernel."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    if launch.threads:
        torch.set_num_threads(launch.threads)
    quiet_libraries()


def quiet_libraries() -> None:
    """Keep what DeepSpeed, torch and botocore say to their own developers out of the log."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    for name in ("DeepSpeed", "botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.ERROR)


def join_deepspeed() -> None:
    """Let DeepSpeed use the process group that the launcher made."""
    import deepspeed

    deepspeed.init_distributed(backend(), dist_init_required=False, verbose=False)


def backend() -> str:
    """Collectives of this machine: NCCL between GPUs, gloo between CPUs."""
    import torch

    return "nccl" if torch.cuda.is_available() else "gloo"


def load(worker: str) -> Worker:
    """The function that `package.module:function` names."""
    module, _, name = worker.partition(":")
    function: Worker = getattr(importlib.import_module(module), name)
    return function
