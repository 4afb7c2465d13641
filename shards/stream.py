"""What every loader shares: the samples of one rank in the order of `shards.order`, read in blocks and ahead of their use.

A lane's block is read with one range request for each shard that it touches, decoded once, and served from memory until
its last sample is used; a thread reads ahead. What a sample and a batch are is up to the loader that streams them.
"""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from shards.dataset import ShardSet
from shards.order import PADDING, Order, OrderConfig, OrderError, Position, rank_slice
from shards.tar import ShardFormatError, checksum, unpack_samples


@dataclass(frozen=True)
class LoaderConfig:
    """What a rank reads and how far ahead."""

    order: OrderConfig = field(default_factory=OrderConfig)
    ahead: int = 3
    """Batches prepared before they are asked for."""
    connections: int = 4
    """Range requests under way at once."""

    def __post_init__(self) -> None:
        for name in ("ahead", "connections"):
            if getattr(self, name) < 1:
                raise OrderError(f"data.loader.{name}: expected at least 1, found {getattr(self, name)}")


SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT")


class SampleStream(ABC, Generic[SampleT, BatchT]):
    """Endless batches of one rank.

    Args:
        data: the samples to read, already filtered by split.
        config: order and read-ahead.
        rank: which part of each global batch to take.
        world_size: of how many.
        start: where to begin; `order.restore(state)` after a restart.
    """

    def __init__(
        self, data: ShardSet, config: LoaderConfig, rank: int = 0, world_size: int = 1, start: Position = Position()
    ) -> None:
        self.data = data
        self.config = config
        shards, shard_of = np.unique(np.asarray(data.index["shard"].to_pylist()), return_inverse=True)
        self.order = Order(shard_of.astype(np.int64), config.order, data.digest)
        self.start = start
        self._shards = [str(name) for name in shards]
        self._shard_of = shard_of
        self._offset = data.index["offset"].to_numpy()
        self._bytes = data.index["bytes"].to_numpy()
        self._xxh3 = data.index["xxh3"].to_numpy()
        self._keys: list[str] = data.index["key"].to_pylist()
        self._slice = rank_slice(config.order.global_batch, rank, world_size)
        self._width = -(-config.order.global_batch // world_size)

    @abstractmethod
    def _decode(self, key: str, members: dict[str, memoryview], where: str) -> SampleT:
        """One sample from its members; raises `ShardFormatError` where they are not what they should be."""

    @abstractmethod
    def _collate(self, chosen: Sequence[tuple[str, SampleT] | None], position: Position) -> BatchT:
        """A batch of `self._width` places from at most as many (key, sample), None for padding."""

    @abstractmethod
    def _waited(self, batch: BatchT, seconds: float) -> BatchT:
        """The batch with the time that its caller waited for it."""

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return self.order.batches

    def __iter__(self) -> Iterator[BatchT]:
        """Batches from the start position on; the reading thread ends with the iterator."""
        prepared: queue.Queue[BatchT | BaseException] = queue.Queue(self.config.ahead)
        ended = threading.Event()

        def hand_over(item: BatchT | BaseException) -> None:
            while not ended.is_set():
                try:
                    return prepared.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def read_ahead() -> None:
            try:
                with ThreadPoolExecutor(self.config.connections) as pool:
                    for batch in self._batches(pool):
                        if ended.is_set():
                            return
                        hand_over(batch)
            except BaseException as error:  # handed to the caller, who raises it
                hand_over(error)

        reader = threading.Thread(target=read_ahead, name="sample-stream", daemon=True)
        reader.start()
        try:
            while True:
                asked = time.perf_counter()
                item = prepared.get()
                if isinstance(item, BaseException):
                    raise item
                yield self._waited(item, time.perf_counter() - asked)
        finally:
            ended.set()
            reader.join()

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[BatchT]:
        blocks: OrderedDict[tuple[int, int, int], tuple[NDArray[np.int64], list[SampleT]]] = OrderedDict()
        sequence, sequence_epoch = np.zeros(0, np.int64), -1
        for position in self.order.positions(self.start):
            if position.epoch != sequence_epoch:
                sequence, sequence_epoch = self.order.sequence(position.epoch), position.epoch
            places = self.order.places(position.batch)[slice(*self._slice)]
            in_use = set()
            chosen: list[tuple[str, SampleT] | None] = []
            for place in places:
                if place == PADDING:
                    chosen.append(None)
                    continue
                block = self.order.block_of(int(place))
                name = (position.epoch, block.lane, block.number)
                in_use.add(name)
                if name not in blocks:
                    rows = sequence[block.start : block.stop][self.order.shuffled(position.epoch, block)]
                    blocks[name] = (rows, self._read(rows, pool))
                rows, samples = blocks[name]
                chosen.append((self._keys[rows[place - block.start]], samples[place - block.start]))
            for name in [name for name in blocks if name not in in_use]:
                del blocks[name]
            yield self._collate(chosen, Position(position.epoch, position.batch + 1))

    def _read(self, rows: NDArray[np.int64], pool: ThreadPoolExecutor) -> list[SampleT]:
        """The samples of the given rows, in that order, with one request for each run of a shard."""
        wanted = np.sort(rows)
        runs = np.split(wanted, np.flatnonzero((np.diff(wanted) != 1) | (np.diff(self._shard_of[wanted]) != 0)) + 1)
        read = {row: sample for run in pool.map(self._read_run, runs) for row, sample in run}
        return [read[int(row)] for row in rows]

    def _read_run(self, run: NDArray[np.int64]) -> list[tuple[int, SampleT]]:
        first, last = int(run[0]), int(run[-1])
        shard = self._shards[self._shard_of[first]]
        start = int(self._offset[first])
        length = int(self._offset[last] + self._bytes[last]) - start
        where = self.data.store.uri_of(shard)
        samples = []
        body = memoryview(self.data.store.get_range(shard, start, length))
        for row in run:
            place = int(self._offset[row]) - start
            sample = body[place : place + int(self._bytes[row])]
            if checksum(sample) != self._xxh3[row]:
                raise ShardFormatError(
                    f"{where}: the bytes of sample {self._keys[row]} are not those that the index was made for; the shard was "
                    "damaged or replaced: verify and copy or build it again"
                )
            [(key, members)] = unpack_samples(sample, where)
            samples.append((int(row), self._decode(key, members, where)))
        return samples
