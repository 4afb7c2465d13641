"""Start a job's worker in this process: alone, or as one of those that torchrun started.

python -m jobs.coca --config …
torchrun --nproc-per-node 8 -m jobs.coca --config …
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import RunError
from cluster.failure import first_cause
from cluster.launch.config import LaunchConfig
from cluster.stopping import listening

Worker = Callable[..., dict[str, Any]]
"""Called on each rank with the job's settings as a dictionary and `on_report`; returns what rank 0 has to say at the end."""


ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}


def run(worker: str, settings: dict[str, Any], launch: LaunchConfig) -> dict[str, Any]:
    """Run a worker (`package.module:function`) in the process group of this process.

    Raises:
        FailedRankError: the first cause of a failure that nobody foresaw.
        RunError: more workers are wanted than processes are there, or the run cannot go on.
        SilentError: another rank's failure is the first cause.
    """
    started_by_torchrun = "WORLD_SIZE" in os.environ
    if not started_by_torchrun and launch.workers > 1:
        raise RunError(
            f"launch.workers {launch.workers}: this is one process without Ray; start it with "
            f"'torchrun --nproc-per-node {launch.workers} -m …', set RAY_ADDRESS, or set launch.workers 1"
        )
    with listening():
        return _in_group(load(worker), settings, launch, started_by_torchrun)


def _in_group(worker: Worker, settings: dict[str, Any], launch: LaunchConfig, started_by_torchrun: bool) -> dict[str, Any]:
    prepare_process(launch)
    import torch.distributed as dist

    if started_by_torchrun:
        dist.init_process_group(backend())
    else:
        # DeepSpeed asks the environment who it is. One process meets nobody: the system chooses the port.
        os.environ.update(ALONE)
        dist.init_process_group(backend(), init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
    try:
        with first_cause(settings, launched=os.environ.get("TORCHELASTIC_RUN_ID", os.environ.get("SLURM_JOB_ID", ""))):
            outcome = worker(settings, on_report=lambda values: None)
            # Nobody leaves while another rank still talks to it.
            dist.barrier()
        return outcome
    finally:
        dist.destroy_process_group()
        if not started_by_torchrun:
            for name in ALONE:
                del os.environ[name]


def prepare_process(launch: LaunchConfig) -> None:
    """What has to be set before the first import of DeepSpeed and the first kernel."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    if launch.threads:
        torch.set_num_threads(launch.threads)
    prepare_libraries()


def prepare_libraries() -> None:
    """Tell DeepSpeed where it runs, and keep what libraries say to their own developers out of the log."""
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if os.access(sys.prefix, os.W_OK):
        # Compiled for this environment's torch: one cache for several environments would be rebuilt at every change.
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions"))
    # Its compiler is driven by ninja, whose cache knows a command by its text: always this environment's own.
    os.environ["PATH"] = os.pathsep.join(dict.fromkeys([str(Path(sys.executable).parent), *os.get_exec_path()]))
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
