"""How many workers, on what, started by whom."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from cluster.errors import RunError, at_least


@dataclass(frozen=True)
class LaunchConfig:
    """How the workers of a job are started."""

    launcher: Literal["auto", "ray", "processes"] = "auto"
    """ray: Ray Train on the cluster that RAY_ADDRESS names. processes: this process, or those that torchrun started.
    auto: ray where RAY_ADDRESS is set, which a submitted job finds set, else processes."""
    workers: int = 1
    """Ranks under Ray; torchrun brings its own number."""
    min_workers: int = 0
    """Under Ray: with how few ranks the run goes on while the cluster has no room for `workers`; it grows back when it has.
    The global batch and the order of the samples stay. 0 keeps the number of ranks: the run waits for room."""
    resize_every_s: float = 60
    """With `min_workers`: seconds between looks for room to grow, which starts the ranks anew."""
    cpus_per_worker: float = 1
    gpus_per_worker: int = 0
    """1 trains on GPUs with NCCL, 0 on CPUs with gloo."""
    threads: int = 0
    """Threads of a worker's CPU kernels; 0 leaves torch's choice. A fixed number makes a CPU run repeat to the bit."""
    max_failures: int = 3
    """Times that Ray starts the workers again from the newest committed checkpoint."""

    def __post_init__(self) -> None:
        at_least(1, launch__workers=self.workers)
        at_least(0, launch__gpus_per_worker=self.gpus_per_worker, launch__threads=self.threads)
        at_least(0, launch__min_workers=self.min_workers, launch__resize_every_s=self.resize_every_s)
        if self.min_workers > self.workers:
            raise RunError(f"launch.min_workers: at most launch.workers {self.workers} are allowed, not {self.min_workers}")

    @property
    def fewest(self) -> int:
        """Ranks below which the run waits."""
        return self.min_workers or self.workers

    @property
    def by(self) -> Literal["ray", "processes"]:
        """The launcher that `auto` stands for here."""
        if self.launcher != "auto":
            return self.launcher
        return "ray" if os.environ.get("RAY_ADDRESS") and "TORCHELASTIC_RUN_ID" not in os.environ else "processes"
