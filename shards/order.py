"""In which order samples are read: a pure function of (samples, seed, epoch, lanes). docs/order.md draws it.

How an epoch is laid out, for 10 samples in shards A B C, a global batch of 4 and 2 lanes:

    shards shuffled:   C C C A A A A B B B       (seeded by the epoch)
    kept:              C C C A | A A A B         two full batches; the tail `B B` is dropped, or padded into a third
    lanes:             lane 0  | lane 1          each lane is a contiguous run, so it reads its shards sequentially
    blocks shuffled:   C A C C | A B A A         inside each lane, block by block
    batch 0:           C A     + A B             every batch takes its share from each lane, in lane order
    batch 1:           C C     + A A

Of a mixture of data sets, the first line is woven from the shuffled shards of each of them, evenly (`weave`). Nothing here
knows of ranks, workers or restarts: rank r of W takes positions [r B // W, (r + 1) B // W) of each batch. When W divides the
lanes, a rank's positions come from its own lanes alone, so that a node reads only its share.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.draws import permutation
from shards.identity import Identity

ORDER_VERSION = 2
PADDING = -1
"""Stands in a batch where there is no sample; such places have weight 0."""


class OrderError(ValueError):
    """An order that cannot be, or a state that belongs to another: one sentence."""


@dataclass(frozen=True)
class OrderConfig:
    """What the order of samples depends on, beside the samples themselves."""

    global_batch: int = 64
    """Samples of one optimiser step over all ranks."""
    seed: int = 0
    lanes: int = 32
    """Independent sequential readers that each batch is woven from: an eighth of the global batch or more mixes well, and a
    multiple of the ranks reads least."""
    block: int = 64
    """Samples shuffled together inside a lane: more mixes better and holds more of a lane in memory."""
    shuffle: bool = True
    drop_tail: bool = True
    """Drop the samples that fill no batch, or else pad the last batch with weight 0."""

    def __post_init__(self) -> None:
        for name in ("global_batch", "lanes", "block"):
            if getattr(self, name) < 1:
                raise OrderError(f"data.loader.order.{name}: expected at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class Part:
    """One data set of an order: alone, or in a mixture."""

    shard_of: NDArray[np.int64]
    """(N,) shard number of each sample, non-decreasing."""
    taken: int
    """Samples that an epoch takes of it: N for each once, 2 N for each twice, fewer for a share that moves on every epoch."""


@dataclass(frozen=True)
class Position:
    """How far reading has come: the state of a loader, whole."""

    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that were used already."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of one shuffled block that fills neighbouring positions of a batch."""

    lane: int
    block: int
    """Number of the block in its lane."""
    start: int
    """Places [start, stop) of the block."""
    stop: int


@dataclass(frozen=True)
class Drawn:
    """Samples as they come: what a place of an epoch holds."""

    samples: NDArray[np.int64]
    """(n,) sample numbers."""
    rounds: NDArray[np.int64]
    """(n,) how often the sample's whole data set was read before: the epoch, unless a mixture takes more or less of it."""

    def taken(self, places: NDArray[Any] | slice) -> Drawn:
        """Some of them."""
        return Drawn(self.samples[places], self.rounds[places])

    @classmethod
    def joined(cls, parts: Sequence[Drawn]) -> Drawn:
        """One after the other."""
        none = [np.zeros(0, np.int64)]
        return cls(
            np.concatenate(none + [part.samples for part in parts]), np.concatenate(none + [part.rounds for part in parts])
        )


class Order:
    """The order of the samples of one data set or of a mixture.

    Samples are numbered through: those of the first part from 0, those of the second from where the first ends.

    Args:
        parts: the data sets.
        config: what the order depends on.
        identity: names the samples.

    Raises:
        OrderError: the samples do not fill one batch.
    """

    def __init__(self, parts: Sequence[Part], config: OrderConfig, identity: Identity) -> None:
        self.config = config
        self.identity = identity
        self._taken = [part.taken for part in parts]
        firsts = np.cumsum([0, *(len(part.shard_of) for part in parts)])
        self._parts = [_PartOrder(part, number, int(firsts[number]), config) for number, part in enumerate(parts)]
        self.samples = sum(self._taken)
        """Of an epoch, the tail among them."""
        self.full_batches, self.tail = divmod(self.samples, config.global_batch)
        if config.drop_tail and self.full_batches == 0:
            raise OrderError(
                f"{self.samples} samples do not fill one global batch of {config.global_batch}; set "
                f"data.loader.order.global_batch to {self.samples} or less, or use more data"
            )
        self._share = [lane * config.global_batch // config.lanes for lane in range(config.lanes + 1)]
        """Lane l fills positions [share[l], share[l + 1]) of every batch, and places [share[l] F, share[l + 1] F) of the
        sequence, F being the full batches. The tail is a lane of its own, the last."""
        self._places = [*(share * self.full_batches for share in self._share), self.samples]

    @property
    def batches(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self.full_batches + (not self.config.drop_tail and self.tail > 0)

    def sequence(self, epoch: int, start: int, stop: int) -> Drawn:
        """What stands at places [start, stop) before blocks are shuffled: shards in a shuffled order, parts woven.

        Costs as much wherever it is.
        """
        part, place = weave(np.arange(start, stop), self._taken)
        drawn = Drawn(np.empty(stop - start, np.int64), np.empty(stop - start, np.int64))
        for number, order in enumerate(self._parts):
            here = part == number
            if count := int(np.count_nonzero(here)):
                first = epoch * self._taken[number] + int(place[np.argmax(here)])
                drawn.samples[here], drawn.rounds[here] = order.drawn(first, first + count)
        return drawn

    def block(self, epoch: int, lane: int, number: int) -> Drawn:
        """At most `block` samples: one block of a lane, shuffled."""
        start = self._places[lane] + number * self.config.block
        drawn = self.sequence(epoch, start, min(start + self.config.block, self._places[lane + 1]))
        if not self.config.shuffle:
            return drawn
        return drawn.taken(permutation(len(drawn.samples), "block", self.config.seed, epoch, lane, number))

    def segments(self, batch: int, first: int = 0, last: int | None = None) -> list[Segment]:
        """What fills positions [first, last) of a batch, in order; less than asked for where the tail ends."""
        last = self.config.global_batch if last is None else last
        size = self.config.block
        return [
            Segment(lane, number, max(start - number * size, 0), min(stop - number * size, size))
            for lane, start, stop in self._runs(batch, first, last)
            for number in range(start // size, -(-stop // size))
        ]

    def wanted(self, lane: int, number: int, first: int, last: int, from_batch: int = 0) -> NDArray[np.bool_]:
        """(at most `block`,) which places of a block fill positions [first, last) of a batch from `from_batch` on.

        It is what a rank needs of the block, after a resume at that batch.
        """
        start = number * self.config.block
        place = np.arange(start, min(start + self.config.block, self._places[lane + 1] - self._places[lane]))
        if lane == self.config.lanes:
            return (first <= place) & (place < last)
        batch, position = np.divmod(place, self._share[lane + 1] - self._share[lane])
        position += self._share[lane]
        return (batch >= from_batch) & (first <= position) & (position < last)

    def batch_samples(self, epoch: int, batch: int, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        """(last - first,) samples at positions of a global batch, `PADDING` where there is none.

        Costs a few blocks, wherever it is.
        """
        last = self.config.global_batch if last is None else last
        samples = np.full(last - first, PADDING)
        filled = 0
        for segment in self.segments(batch, first, last):
            count = segment.stop - segment.start
            block = self.block(epoch, segment.lane, segment.block)
            samples[filled : filled + count] = block.samples[segment.start : segment.stop]
            filled += count
        return samples

    def positions(self, start: Position) -> Iterator[Position]:
        """Positions from `start` on, epoch after epoch, without end."""
        epoch, batch = start.epoch, start.batch
        while True:
            if batch >= self.batches:
                epoch, batch = epoch + 1, 0
            yield Position(epoch, batch)
            batch += 1

    def state(self, position: Position) -> dict[str, Any]:
        """JSON scalars from which another process, of any world size, goes on."""
        return {
            "order_version": ORDER_VERSION,
            "index_sha256": self.identity.index_sha256,
            "selection": self.identity.selection,
            "shards": self.identity.fingerprints,
            "samples": self.samples,
            **asdict(position),
            **asdict(self.config),
        }

    def restore(self, state: Mapping[str, Any]) -> Position:
        """The position of a state that this order gave.

        Raises:
            OrderError: the state is of other samples, another seed or layout; the sentence names what differs, shards by name.
        """
        position = Position(int(state["epoch"]), int(state["batch"]))
        now = self.state(position)
        changed = [name for name in now if state.get(name) != now[name]]
        differing = [f"{name} {state.get(name)!r} then, {now[name]!r} now" for name in changed if name != "shards"]
        if "shards" in changed:
            differing.insert(0, self.identity.differing(str(state.get("shards", ""))))
        if differing:
            raise OrderError(
                f"the checkpoint's data position belongs to another order of samples ({'; '.join(differing)}); "
                "use the same shards and data settings, or start a new run"
            )
        return position

    def _runs(self, batch: int, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """(lane, start, stop) in places of the lane that fill positions [first, last) of a batch."""
        if batch == self.full_batches:
            if first < min(last, self.tail):
                yield self.config.lanes, first, min(last, self.tail)
            return
        for lane in range(bisect_right(self._share, first) - 1, bisect_left(self._share, last)):
            begin, end = self._share[lane], self._share[lane + 1]
            start = batch * (end - begin) + max(first, begin) - begin
            stop = batch * (end - begin) + min(last, end) - begin
            if start < stop:
                yield lane, start, stop


class _PartOrder:
    """The samples of one data set without end, round after round of all of them, whole shards shuffled in each."""

    def __init__(self, part: Part, number: int, first: int, config: OrderConfig) -> None:
        shard_of = part.shard_of
        self._number, self._first, self._config = number, first, config
        self._starts = np.flatnonzero(np.r_[True, shard_of[1:] != shard_of[:-1]][: len(shard_of)])
        self._lengths = np.diff(np.r_[self._starts, len(shard_of)])
        self._total = len(shard_of)
        self._shards = lru_cache(maxsize=2)(self._shuffled_shards)

    def drawn(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(last - first,) sample numbers at places of the endless sequence, and the round that each is of."""
        rounds, places = np.divmod(np.arange(first, last), self._total)
        samples = [self._samples(number, places[rounds == number]) for number in range(rounds[0], rounds[-1] + 1)]
        return np.concatenate(samples), rounds

    def _samples(self, round_number: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        begins, ends = self._shards(round_number)
        shard = np.searchsorted(ends, places, side="right")
        return self._first + begins[shard] + places - ends[shard]

    def _shuffled_shards(self, round_number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each shuffled shard, the sample that would lie just behind it, and the place at which it ends."""
        shards = np.arange(len(self._starts))
        if self._config.shuffle:
            shards = permutation(len(shards), "shards", self._config.seed, round_number, self._number)
        return (self._starts + self._lengths)[shards], np.cumsum(self._lengths[shards])


def weave(places: NDArray[np.int64], taken: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which part each place of an epoch takes its sample from, and which of that part's samples it is.

    The first part holds ⌊p n / N⌋ of the first p places, n being what is taken of it and N of all; the rest goes to the other
    parts in the same way. So each part is spread evenly over the epoch, and stands in it exactly as often as it is taken.

    Returns:
        (n,) number of the part, and (n,) how many places before have taken of it.
    """
    part = np.full(len(places), len(taken) - 1)
    place, rest = places.copy(), np.ones(len(places), bool)
    total = sum(taken)
    for number, count in enumerate(taken[:-1]):
        before, after = place * count // total, (place + 1) * count // total
        here = rest & (after > before)
        part[here] = number
        rest &= ~here
        place = np.where(here, before, np.where(rest, place - before, place))
        total -= count
        if total == 0:
            break
    return part, place


def rank_slice(global_batch: int, rank: int, world_size: int) -> tuple[int, int]:
    """Positions [start, stop) of each batch that a rank takes; ranks differ by at most one."""
    return rank * global_batch // world_size, (rank + 1) * global_batch // world_size
