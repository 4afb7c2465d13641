"""Which rank the others wait for, and whether all wait for data: judged over a window of steps, without false alarms.

A step lasts as long on every rank, because its collectives hold all of them until the last is there. What tells a slow rank is
its own time before that: reading its data, and its forward pass less what it waited inside for other ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Any

from cluster.events import Events
from cluster.progress import here, rank_on_host
from cluster.watch import WatchConfig
from cluster.world import World

WARM_UP = 3
"""Steps of an attempt that compile and fill caches; they are not judged."""
MATERIAL = 0.1
"""Of a step: a rank that is slower by less delays nobody much."""


class Pace:
    """The pace of this attempt's ranks, which all call `judge` together.

    Args:
        config: when to speak.
        world: the ranks.
        events: where it is said.
        loader: the settings of the data loader, named in the advice.
    """

    def __init__(self, config: WatchConfig, world: World, events: Events, loader: dict[str, Any]) -> None:
        self._config, self._world, self._events, self._loader = config, world, events, loader
        self._lines: list[dict[str, Any]] = []
        self._to_skip = WARM_UP
        self._before = (0.0, 0.0)
        self._starved = False

    def judge(self, lines: Sequence[dict[str, Any]]) -> None:
        """Take the lines of some more steps, of this rank's own times; when a window is full, say what is wrong."""
        if self._to_skip > 0:
            self._to_skip -= len(lines)
            self._before = own_seconds()
            return
        self._lines += lines
        if len(self._lines) < self._config.window:
            return
        data, waited = (now - before for now, before in zip(own_seconds(), self._before, strict=True))
        forward = sum(line["perf/time_forward_s"] for line in self._lines)
        steps = len(self._lines)
        ranks = self._of_all_ranks(data / steps, max(0.0, forward - waited) / steps)
        step_s = sum(line["perf/time_step_s"] for line in self._lines) / steps
        share = sum(line["perf/data_wait_share"] for line in self._lines) / steps
        if self._world.main and not self._say_slow(ranks, step_s) and share > self._config.starved_share:
            self._say_starved(share)
        self._lines, self._before = [], own_seconds()

    def _of_all_ranks(self, *seconds: float) -> list[tuple[float, ...]]:
        """The seconds of every rank, in their order."""
        own, count = self._world.rank * len(seconds), len(seconds)
        numbers = [0] * (self._world.size * count)
        numbers[own : own + count] = [round(value * 1e6) for value in seconds]
        summed = self._world.sum_on_host(*numbers)
        return [tuple(value / 1e6 for value in summed[i : i + count]) for i in range(0, len(summed), count)]

    @property
    def _span(self) -> str:
        return f"steps {self._lines[0]['step']} to {self._lines[-1]['step']}"

    def _say_slow(self, ranks: list[tuple[float, ...]], step_s: float) -> bool:
        """Name the slow rank, if there is one, and say whether there is."""
        own = [data + forward for data, forward in ranks]
        slowest = slow_rank(own, step_s, self._config.slow_factor)
        if slowest is None:
            return False
        usual = median_low(own)
        excess = {
            name: ranks[slowest][i] - median_low([rank[i] for rank in ranks]) for i, name in enumerate(("data", "forward"))
        }
        phase = max(excess, key=excess.__getitem__)
        cause = "its connection to the store, and its disk" if phase == "data" else "what else runs there, and its temperature"
        self._events.say(
            "slow_rank",
            f"{rank_on_host(slowest)} is slow: {own[slowest]:.3g} s of its own a step, the median rank {usual:.3g} s, over "
            f"{self._span}, mostly in {phase}; every step waits for it: look at that machine, at {cause}",
            self._lines[-1]["step"],
        )
        return True

    def _say_starved(self, share: float) -> None:
        """Once in an attempt."""
        if self._starved:
            return
        self._starved = True
        cache = self._loader.get("cache", {}).get("folder")
        keep = "" if cache else ", keep shards on a local disk (data.loader.cache.folder)"
        self._events.say(
            "starved",
            f"the ranks wait for data {share:.0%} of the time over {self._span}: raise data.loader.connections "
            f"({self._loader.get('connections', 8)}) or data.loader.ahead ({self._loader.get('ahead', 3)}){keep}, or give each "
            "worker more CPUs",
            self._lines[-1]["step"],
        )


def slow_rank(seconds: Sequence[float], step_s: float, factor: float) -> int | None:
    """The rank that delays the others, if any does.

    Args:
        seconds: of each rank's own in a step.
        step_s: of the whole step.
        factor: how many times the median rank's it has to be.
    """
    # The lower median: of two ranks the faster is the measure.
    usual = median_low(seconds)
    slowest = max(range(len(seconds)), key=seconds.__getitem__)
    slow = seconds[slowest] >= factor * usual and seconds[slowest] - usual >= MATERIAL * step_s
    return slowest if slow else None


def own_seconds() -> tuple[float, float]:
    """So far in this attempt: seconds in the data phase, and seconds that the forward pass waited for other ranks."""
    return here.seconds.get("data", 0.0), here.waited.get("forward", 0.0)
