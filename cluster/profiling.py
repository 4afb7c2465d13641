"""A few steps looked at in detail, when somebody asks for it: torch's profiler, as traces in the run's folder.

    --profile steps=10-20   →   RUN/profile/steps-10-20-rank-00000.json.gz

Any trace viewer reads them: https://ui.perfetto.dev, chrome://tracing. Other steps run as they would without a profile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function

from cluster.console import say
from cluster.errors import RunError
from cluster.markers import rank_name
from cluster.world import World
from shards.storage import Store

FOLDER = "profile"


@dataclass(frozen=True)
class ProfileConfig:
    """Which steps are looked at in detail."""

    steps: str = ""
    """The first and the last of them, as 10-20; empty: none."""
    ranks: list[int] = field(default_factory=lambda: [0])
    """Whose."""

    def __post_init__(self) -> None:
        if self.steps and not (self.first and self.first <= self.last):
            raise RunError(f"train.profile.steps {self.steps!r}: expected the first and the last step, as 10-20")

    @property
    def first(self) -> int:
        """First step; 0 where there is none."""
        found = re.fullmatch(r"(\d+)(-\d+)?", self.steps)
        return int(found[1]) if found else 0

    @property
    def last(self) -> int:
        """Last step; 0 where there is none."""
        return int(self.steps.rpartition("-")[2]) if self.first else 0


class Profiler:
    """The profile of one rank.

    Args:
        config: which steps of which ranks.
        world: the ranks.
        run: the run's folder.
        local: scratch folder.
    """

    def __init__(self, config: ProfileConfig, world: World, run: Store, local: Path) -> None:
        self._config, self._run, self._local = config, run, local
        ranks = [rank for rank in config.ranks if rank < world.size]
        self._wanted = config.first > 0 and world.rank in ranks
        self._says = bool(ranks) and world.rank == min(ranks)
        self._name = f"{FOLDER}/steps-{config.steps}-{rank_name(world.rank)}.json.gz"
        self._profile: Any = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="profile")

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """One step, inside a `with`."""
        if not self._wanted or not self._config.first <= number <= self._config.last:
            yield
            return
        if self._profile is None:
            self._start()
        with record_function(f"step {number}"):
            yield
        if number == self._config.last:
            self._stop()

    def close(self) -> None:
        """End a profile that is under way, and wait until it is in the run's folder."""
        if self._profile is not None:
            self._stop()
        self._writer.shutdown()

    def _start(self) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=activities)
        self._profile.start()

    def _stop(self) -> None:
        profile, self._profile = self._profile, None
        profile.stop()
        self._writer.submit(self._write, profile)

    def _write(self, profile: Any) -> None:
        """Beside training: a trace takes seconds to write."""
        file = self._local / Path(self._name).name
        try:
            profile.export_chrome_trace(str(file))
            self._run.upload(file, self._name)
        except (OSError, RuntimeError) as error:
            say(f"the profile of steps {self._config.steps} is lost: {error}")
            return
        if self._says:
            say(f"profile of steps {self._config.steps}: {self._run.uri_of(self._name)}; open it in https://ui.perfetto.dev")
