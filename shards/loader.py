"""Batches of ECGs for one rank, streamed from shards in the order of `shards.order`.

A lane's block is read with one range request for each shard that it touches, decoded once, and served from memory until
its last sample is used; a thread reads ahead. What leaves is int16 with its scales: millivolts are made on the device.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.dataset import ShardSet
from shards.order import PADDING, Block, Order, OrderConfig, OrderError, Position, rank_slice
from shards.record import INVALID, LEADS
from shards.tar import ShardFormatError, decode_array, decode_json, unpack_samples


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


@dataclass(frozen=True)
class EcgBatch:
    """What one rank takes of one global batch. n is the same on every rank; surplus places have weight 0."""

    ecg: NDArray[np.int16]
    """(n, 12, samples), `INVALID` where a record is shorter or not valid."""
    mv_per_lsb: NDArray[np.float32]
    """(n, 12)."""
    weight: NDArray[np.float32]
    """(n,) 1 for a sample, 0 for padding."""
    records: list[dict[str, Any]]
    """The samples' descriptions, {} for padding."""
    keys: list[str]
    position: Position
    """Where reading stands after this batch."""
    wait_s: float
    """Seconds that the caller waited for it."""


@dataclass(frozen=True)
class _Sample:
    ecg: NDArray[np.int16]
    record: dict[str, Any]


class EcgLoader:
    """Endless batches of one rank.

    Args:
        data: the samples to read, already filtered by split.
        config: order and read-ahead.
        samples: length that every ECG is cut or padded to.
        rank: which part of each global batch to take.
        world_size: of how many.
        start: where to begin; `order.restore(state)` after a restart.
    """

    def __init__(
        self,
        data: ShardSet,
        config: LoaderConfig,
        samples: int,
        rank: int = 0,
        world_size: int = 1,
        start: Position = Position(),
    ) -> None:
        self.data = data
        self.samples = samples
        self.config = config
        shards, shard_of = np.unique(np.asarray(data.index["shard"].to_pylist()), return_inverse=True)
        self.order = Order(shard_of.astype(np.int64), config.order, data.digest)
        self.start = start
        self._shards = [str(name) for name in shards]
        self._shard_of = shard_of
        self._offset = data.index["offset"].to_numpy()
        self._bytes = data.index["bytes"].to_numpy()
        self._keys: list[str] = data.index["key"].to_pylist()
        self._slice = rank_slice(config.order.global_batch, rank, world_size)
        self._width = -(-config.order.global_batch // world_size)

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return self.order.batches

    def __iter__(self) -> Iterator[EcgBatch]:
        """Batches from the start position on; the reading thread ends with the iterator."""
        prepared: queue.Queue[EcgBatch | BaseException] = queue.Queue(self.config.ahead)
        ended = threading.Event()

        def hand_over(item: EcgBatch | BaseException) -> None:
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

        reader = threading.Thread(target=read_ahead, name="ecg-loader", daemon=True)
        reader.start()
        try:
            while True:
                asked = time.perf_counter()
                item = prepared.get()
                if isinstance(item, BaseException):
                    raise item
                yield EcgBatch(**{**item.__dict__, "wait_s": time.perf_counter() - asked})
        finally:
            ended.set()
            reader.join()

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[EcgBatch]:
        blocks: OrderedDict[tuple[int, int, int], tuple[NDArray[np.int64], list[_Sample]]] = OrderedDict()
        sequence, sequence_epoch = np.zeros(0, np.int64), -1
        for position in self.order.positions(self.start):
            if position.epoch != sequence_epoch:
                sequence, sequence_epoch = self.order.sequence(position.epoch), position.epoch
            places = self.order.places(position.batch)[slice(*self._slice)]
            in_use = set()
            chosen: list[tuple[str, _Sample] | None] = []
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

    def _read(self, rows: NDArray[np.int64], pool: ThreadPoolExecutor) -> list[_Sample]:
        """The samples of the given rows, in that order, with one request for each run of a shard."""
        wanted = np.sort(rows)
        runs = np.split(wanted, np.flatnonzero((np.diff(wanted) != 1) | (np.diff(self._shard_of[wanted]) != 0)) + 1)
        read = {row: sample for run in pool.map(self._read_run, runs) for row, sample in run}
        return [read[int(row)] for row in rows]

    def _read_run(self, run: NDArray[np.int64]) -> list[tuple[int, _Sample]]:
        first, last = int(run[0]), int(run[-1])
        shard = self._shards[self._shard_of[first]]
        start = int(self._offset[first])
        length = int(self._offset[last] + self._bytes[last]) - start
        where = self.data.store.uri_of(shard)
        samples = []
        body = self.data.store.get_range(shard, start, length)
        for row, (key, members) in zip(run, unpack_samples(body, where), strict=True):
            if key != self._keys[row]:
                raise ShardFormatError(
                    f"{where}: expected sample {self._keys[row]} at byte {int(self._offset[row])}, found {key}; "
                    "the shard is not the one the index was made for: verify and rebuild the shards"
                )
            samples.append((int(row), _Sample(decode_array(members["ecg.npy"]), decode_json(members["json"]))))
        return samples

    def _collate(self, chosen: list[tuple[str, _Sample] | None], position: Position) -> EcgBatch:
        ecg = np.full((self._width, len(LEADS), self.samples), INVALID, np.int16)
        scale = np.ones((self._width, len(LEADS)), np.float32)
        weight = np.zeros(self._width, np.float32)
        records: list[dict[str, Any]] = [{} for _ in range(self._width)]
        keys = [""] * self._width
        for i, item in enumerate(chosen):
            if item is None:
                continue
            keys[i], sample = item
            length = min(self.samples, sample.ecg.shape[1])
            ecg[i, :, :length] = sample.ecg[:, :length]
            scale[i] = sample.record["mv_per_lsb"]
            weight[i] = 1
            records[i] = sample.record
        return EcgBatch(ecg, scale, weight, records, keys, position, wait_s=0.0)


def block_bytes(block: Block, samples: int) -> int:
    """Memory of a decoded block's signals: (stop - start) x 12 leads x samples x 2 bytes."""
    return (block.stop - block.start) * len(LEADS) * samples * 2
