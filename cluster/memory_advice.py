"""Out of memory: where it happened, and which setting to change, with its present value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from cluster.progress import here

KERNEL_COUNTS = Path("/proc/vmstat")

ON_CPU = re.compile(r"can't allocate memory|DefaultCPUAllocator|not enough memory|Cannot allocate memory")
"""What torch and the system say where the host's memory is short."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was what an error lacked, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and bool(ON_CPU.search(str(error)))


def killed_for_memory() -> int:
    """Processes that the kernel of this machine has ended for want of memory since it started; 0 where it does not say."""
    try:
        lines = KERNEL_COUNTS.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def memory_sentence(who: str, settings: dict[str, Any], world_size: int, killed: bool = False) -> str:
    """What happened and what to do.

    Args:
        who: `rank 3 on node-7, step 12, forward`.
        settings: of the job.
        world_size: ranks.
        killed: whether the kernel ended the process, which then had no word in it.
    """
    happened = "ended by its machine for want of memory" if killed else "out of memory"
    on_host = killed or here.phase in ("start", "data", "agreement")
    return f"{who}: {happened}; {_on_host(settings) if on_host else _on_device(settings, world_size)}"


def _on_host(settings: dict[str, Any]) -> str:
    """Most of a host's memory holds batches, and what the optimiser keeps where there is no accelerator."""
    ahead = settings.get("data", {}).get("loader", {}).get("ahead", 3)
    return (
        f"lower data.loader.ahead ({ahead}), the batches that each rank holds ready, give each worker more of its machine "
        f"(launch.cpus_per_worker under Ray, fewer tasks per node under Slurm), or begin a new run with a lower "
        f"data.loader.order.global_batch ({_global_batch(settings)})"
    )


def _on_device(settings: dict[str, Any], world_size: int) -> str:
    """More ranks share what one holds, and the run goes on; the other settings are the run's own."""
    engine = settings.get("train", {}).get("engine", {})
    accumulation, stage, batch = engine.get("gradient_accumulation", 1), engine.get("zero_stage", 2), _global_batch(settings)
    new = [f"a higher train.engine.zero_stage ({stage})"] if stage < 3 and world_size > 1 else []
    if here.phase != "optimizer":
        new += [
            f"a higher train.engine.gradient_accumulation ({accumulation}), where the stage allows it",
            f"a lower data.loader.order.global_batch ({batch})",
        ]
    return f"go on with more launch.workers ({world_size})" + (f", or begin a new run with {' or '.join(new)}" if new else "")


def _global_batch(settings: dict[str, Any]) -> Any:
    return settings.get("data", {}).get("loader", {}).get("order", {}).get("global_batch", "its default")
