"""The versions that all processes of a run have to share: a driver tells its own, each worker compares.

`constraints.txt` locks them, whoever launches; an environment that was made at another time would train other numbers.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch.distributed as dist

from cluster.progress import HOST
from cluster.world import gather_objects, raise_first

COMPARED = ("ecgchat", "ray", "torch", "deepspeed", "transformers", "peft", "tokenizers", "numpy", "webdataset")
"""Distributions that decide what is computed and in which form it is kept."""


def versions() -> dict[str, str]:
    """Of this process: Python's, and the distributions' that are installed."""
    found = {"python": platform.python_version()}
    for name in COMPARED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # Code that came with the job, as Ray sends it, has no version of its own.
            continue
    return found


def refuse_other_versions(driver: dict[str, str]) -> None:
    """End the run on every rank if some rank's versions are not the driver's; a process group is there.

    Raises:
        AgreedError: names the first such rank, its machine, and what differs.
    """
    raise_first(gather_objects(difference(driver, versions(), f"rank {dist.get_rank()} on {HOST}")))


def difference(driver: dict[str, str], worker: dict[str, str], who: str) -> str | None:
    """One sentence where a worker has other versions than the driver, None where they are the same."""
    differing = [name for name in driver if worker.get(name) != driver[name]]
    if not differing:
        return None
    found = ", ".join(f"{name} {worker.get(name, 'missing')} where the driver has {driver[name]}" for name in differing)
    return f"{who}: {found}; make every machine's environment from the same constraints.txt (make environment)"
