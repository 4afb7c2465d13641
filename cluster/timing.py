"""Where the time of a step goes, without making the device wait: events on a GPU, the clock on a CPU."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field

import torch

PARTS = ("data", "forward", "backward", "optimizer")


@dataclass
class StepTimes:
    """Marks of one step; read them only when the numbers of the step are read."""

    device: torch.device
    marks: list[tuple[str, float, torch.cuda.Event | None]] = field(default_factory=list)

    def mark(self, part: str) -> None:
        """The named part ends here."""
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        self.marks.append((part, time.perf_counter(), event))

    def seconds(self) -> dict[str, float]:
        """Seconds of each part, summed over micro-batches, and of the whole step."""
        parts = dict.fromkeys(PARTS, 0.0)
        for (_, before, event_before), (part, after, event_after) in zip(self.marks, self.marks[1:], strict=False):
            if part == "data" or event_before is None or event_after is None:
                parts[part] += after - before
            else:
                parts[part] += event_before.elapsed_time(event_after) / 1e3
        (_, began, event_began), (_, ended, event_ended) = self.marks[0], self.marks[-1]
        # A GPU runs behind the clock: only its own marks say when the step was done.
        parts["step"] = event_began.elapsed_time(event_ended) / 1e3 if event_began and event_ended else ended - began
        return parts


def peak_memory_gb(device: torch.device) -> float:
    """Largest memory of this process so far: allocated on the GPU, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
