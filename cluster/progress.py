"""Where this process stands in its work: what is said when it fails, or when it does nothing any more."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Progress:
    """One rank's place. All ranks enter the same phases in the same order, so that the one with the least count is behind."""

    step: int | None = None
    """The step that is being done; None before the first."""
    phase: str = "start"
    """start, data, agreement (with the other ranks, on the data), forward, backward, optimizer, numbers, validation or
    checkpoint."""
    count: int = 0
    """Phases entered in this attempt."""
    since: float = field(default_factory=time.perf_counter)
    """When the present one was entered."""
    on_enter: Callable[[str, str], None] = lambda before, after: None
    """Told of each change."""
    ended: str = ""
    """Why the attempt before failed, as rank 0 knows; empty where it did not."""
    waited: dict[str, float] = field(default_factory=dict)
    """Seconds spent in the ranks' own collectives (`cluster.world`), by phase."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each phase, by the clock of the host."""
    hosts: list[str] = field(default_factory=list)
    """Of all ranks, in their order; empty until they have met."""

    def enter(self, phase: str, step: int | None = None) -> None:
        """The next phase begins."""
        now = time.perf_counter()
        self.on_enter(self.phase, phase)
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.since
        self.step = self.step if step is None else step
        self.phase, self.since, self.count = phase, now, self.count + 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, this rank waits for others."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.waited[self.phase] = self.waited.get(self.phase, 0.0) + time.perf_counter() - begun

    def begin(self) -> None:
        """A new attempt begins in this process."""
        self.__dict__.update(Progress().__dict__)

    @property
    def place(self) -> str:
        """`step 12, forward`."""
        return f"step {self.step}, {self.phase}" if self.step is not None else self.phase


here = Progress()
"""A process is one rank, and trains one thing at a time."""

HOST = socket.gethostname()


def rank_on_host(rank: int) -> str:
    """`rank 3 on node-7`; without the host where it is not known."""
    return f"rank {rank} on {here.hosts[rank]}" if rank < len(here.hosts) else f"rank {rank}"
