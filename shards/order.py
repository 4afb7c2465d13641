"""In which order samples are read: a pure function of (samples, seed, epoch, lanes).

How an epoch is laid out, for 10 samples in shards A B C, a global batch of 4 and 2 lanes:

    shards shuffled:   C C C A A A A B B B       (seeded by the epoch)
    kept:              C C C A | A A A B         two full batches; the tail `B B` is dropped, or padded into a third
    lanes:             lane 0  | lane 1          each lane is a contiguous run, so it reads its shards sequentially
    blocks shuffled:   C A C C | A B A A         inside each lane, block by block
    batch 0:           C A     + A B             every batch takes its share from each lane, in lane order
    batch 1:           C C     + A A

Nothing here knows of ranks, workers or restarts: rank r of W takes positions [r B // W, (r + 1) B // W) of each batch.
When W divides the lanes, a rank's positions come from its own lanes alone, so that a node reads only its share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDER_VERSION = 1
PADDING = -1
"""Stands in a batch where there is no sample; such places have weight 0."""

SHARD_STREAM, BLOCK_STREAM = 0, 1
"""Which random stream a draw belongs to, so that no two draws share a seed."""


class OrderError(ValueError):
    """An order that cannot be, or a state that belongs to another: one sentence."""


@dataclass(frozen=True)
class OrderConfig:
    """What the order of samples depends on, beside the samples themselves."""

    global_batch: int = 64
    """Samples of one optimiser step over all ranks."""
    seed: int = 0
    lanes: int = 8
    """Independent sequential readers that each batch is woven from; a multiple of the ranks reads least."""
    block: int = 256
    """Samples shuffled together inside a lane: more mixes better and holds more of a lane in memory."""
    shuffle: bool = True
    drop_tail: bool = True
    """Drop the samples that fill no batch, or else pad the last batch with weight 0."""

    def __post_init__(self) -> None:
        for name in ("global_batch", "lanes", "block"):
            if getattr(self, name) < 1:
                raise OrderError(f"data.loader.order.{name}: expected at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class Position:
    """How far reading has come: the state of a loader, whole."""

    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that were used already."""


@dataclass(frozen=True)
class Block:
    """Samples of one lane that are read and shuffled together."""

    lane: int
    number: int
    start: int
    """Places [start, stop) of the shuffled-shard sequence."""
    stop: int


class Order:
    """The order of one data set's samples.

    Args:
        shard_of: (N,) shard number of each sample, non-decreasing; sample i is row i of the filtered index.
        config: what the order depends on.
        digest: names the index and the filter, so that a state finds out that it belongs to another data set.
    """

    def __init__(self, shard_of: NDArray[np.int64], config: OrderConfig, digest: str) -> None:
        self.config = config
        self.digest = digest
        self._starts = np.flatnonzero(np.r_[True, shard_of[1:] != shard_of[:-1]]) if len(shard_of) else np.zeros(0, np.int64)
        self._lengths = np.diff(np.r_[self._starts, len(shard_of)])
        self.samples = len(shard_of)
        batch = config.global_batch
        self.full_batches = self.samples // batch
        self.tail = self.samples - self.full_batches * batch
        if config.drop_tail and self.full_batches == 0:
            raise OrderError(
                f"{self.samples} samples do not fill one global batch of {batch}; set data.loader.order.global_batch to "
                f"{self.samples} or less, or use more data"
            )
        share = np.arange(config.lanes + 1) * batch // config.lanes
        self._share = share
        """Lane l fills places [share[l], share[l + 1]) of every batch."""
        self._lane_start = share * self.full_batches
        """Lane l is places [lane_start[l], lane_start[l + 1]) of the sequence."""

    @property
    def batches(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self.full_batches + (not self.config.drop_tail and self.tail > 0)

    def sequence(self, epoch: int) -> NDArray[np.int64]:
        """(N,) sample numbers with whole shards shuffled."""
        shards = np.arange(len(self._starts))
        if self.config.shuffle:
            shards = np.random.default_rng([self.config.seed, epoch, SHARD_STREAM]).permutation(shards)
        lengths = self._lengths[shards]
        ends = np.cumsum(lengths)
        return np.arange(self.samples) + np.repeat(self._starts[shards] - (ends - lengths), lengths)

    def places(self, batch: int) -> NDArray[np.int64]:
        """(B,) places of the sequence that a batch is made of, before blocks are shuffled; `PADDING` where none is left."""
        size = self.config.global_batch
        if batch == self.full_batches:
            tail = np.full(size, PADDING)
            tail[: self.tail] = np.arange(self.full_batches * size, self.samples)
            return tail
        position = np.arange(size)
        lane = np.searchsorted(self._share, position, side="right") - 1
        width = self._share[lane + 1] - self._share[lane]
        return self._lane_start[lane] + batch * width + position - self._share[lane]

    def block_of(self, place: int) -> Block:
        """The block that a place of the sequence belongs to; the tail is a lane of its own."""
        lane = int(np.searchsorted(self._lane_start, place, side="right")) - 1
        lane = min(lane, self.config.lanes)
        first = int(self._lane_start[lane])
        last = int(self._lane_start[lane + 1]) if lane < self.config.lanes else self.samples
        number = (place - first) // self.config.block
        start = first + number * self.config.block
        return Block(lane, number, start, min(start + self.config.block, last))

    def shuffled(self, epoch: int, block: Block) -> NDArray[np.int64]:
        """(stop - start,) offsets inside a block: place `start + i` is filled by what lies at `start + shuffled[i]`."""
        length = block.stop - block.start
        if not self.config.shuffle:
            return np.arange(length)
        return np.random.default_rng([self.config.seed, epoch, BLOCK_STREAM, block.lane, block.number]).permutation(length)

    def batch_samples(self, epoch: int, batch: int) -> NDArray[np.int64]:
        """(B,) sample numbers of global batch `batch`, `PADDING` where there is none. Costs a few blocks, wherever it is."""
        sequence = self.sequence(epoch)
        samples = np.full(self.config.global_batch, PADDING)
        for i, place in enumerate(self.places(batch)):
            if place != PADDING:
                block = self.block_of(int(place))
                samples[i] = sequence[block.start + self.shuffled(epoch, block)[place - block.start]]
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
        config = self.config
        return {
            "order_version": ORDER_VERSION,
            "index_sha256": self.digest,
            "epoch": position.epoch,
            "batch": position.batch,
            "seed": config.seed,
            "lanes": config.lanes,
            "block": config.block,
            "global_batch": config.global_batch,
        }

    def restore(self, state: dict[str, Any]) -> Position:
        """The position of a state that this order gave.

        Raises:
            OrderError: the state is of another index, seed or layout; the sentence names what differs.
        """
        position = Position(int(state["epoch"]), int(state["batch"]))
        differing = [
            f"{name} {state.get(name)!r} then, {value!r} now"
            for name, value in self.state(position).items()
            if state.get(name) != value
        ]
        if differing:
            raise OrderError(
                f"the checkpoint's data position belongs to another order of samples ({'; '.join(differing)}); "
                "use the same shards and data settings, or start a new run"
            )
        return position


def rank_slice(global_batch: int, rank: int, world_size: int) -> tuple[int, int]:
    """Places [start, stop) of each batch that a rank takes; ranks differ by at most one."""
    return rank * global_batch // world_size, (rank + 1) * global_batch // world_size
