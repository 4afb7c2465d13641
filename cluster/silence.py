"""Which of several ranks that stand still the others wait for, from what each says of itself."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cluster.progress import rank_on_host

WAITING = ("/torch/distributed/", "/cluster/world.py", "/deepspeed/comm/")
"""Files whose functions wait for other ranks."""


@dataclass(frozen=True)
class Report:
    """Where a rank stands that does not go on."""

    rank: int
    host: str
    step: int | None
    phase: str
    count: int
    """Phases that it entered in this attempt."""
    still_s: float
    over: bool
    """Whether it stands still for longer than its phase may last."""
    waits: bool
    """Whether it is in a collective, as far as its stack shows."""
    at: str
    """The innermost line of its stack that is not a library's."""
    stack: str


def silent_ranks(reports: Mapping[int, Report], size: int) -> list[int]:
    """The ranks that the others wait for; none where that cannot be told."""
    missing = [rank for rank in range(size) if rank not in reports]
    if missing:
        return missing
    least = min(report.count for report in reports.values())
    behind = [rank for rank in sorted(reports) if reports[rank].count == least]
    if len(behind) < size or size == 1:
        return behind
    busy = [rank for rank in behind if not reports[rank].waits]
    return busy if len(busy) < size else []


def verdict(reports: Mapping[int, Report], silent: list[int], size: int, still_s: float) -> str:
    """Who is silent, where, and what the others do."""
    if not silent:
        phases = sorted({report.phase for report in reports.values()})
        return (
            f"all {size} ranks stand still for {still_s:.0f} s in step {next(iter(reports.values())).step} "
            f"({', '.join(phases)}) and none is behind: the network between them fails, or a collective that only some called"
        )
    who = ", ".join(rank_on_host(rank) for rank in silent[:4]) + (f" and {len(silent) - 4} more" if len(silent) > 4 else "")
    others = size - len(silent)
    waiting = f" while {others} other rank{'s' if others > 1 else ''} wait{'' if others > 1 else 's'} for it" if others else ""
    if silent[0] not in reports:
        place = max(reports.values(), key=lambda report: report.count)
        return (
            f"{who} does not answer in step {place.step}{waiting} for {still_s:.0f} s in {place.phase}: its process is "
            "stopped, or its machine or network is gone"
        )
    report = reports[silent[0]]
    return f"{who} stands still for {report.still_s:.0f} s in step {report.step}, {report.phase}, at {report.at}{waiting}"


def waits(frame: FrameType | None) -> bool:
    """Whether a thread is in a function that waits for other ranks."""
    innermost = [] if frame is None else traceback.extract_stack(frame)[-6:]
    return any(part in line.filename for line in innermost for part in WAITING) or any(
        line.name == "_settle" for line in innermost
    )


def own_line(frame: FrameType | None) -> str:
    """`stream.py:88 in collate`: the innermost line that belongs to no library."""
    lines = [] if frame is None else traceback.extract_stack(frame)
    own = [line for line in lines if "site-packages" not in line.filename and "/lib/python" not in line.filename]
    line = (own or lines)[-1] if lines else None
    return f"{Path(line.filename).name}:{line.lineno} in {line.name}" if line else "an unknown place"
