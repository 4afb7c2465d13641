"""What every loader shares: the samples of one rank in the order of `shards.order`, read ahead of their use.

    order ─► the next blocks of this rank's lanes ─► `shards.reader` fetches what the rank needs of them
          ─► batch after batch is made in a thread, `ahead` of them before they are asked for

What a sample and a batch are is up to the loader that streams them.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from shards.cache import CacheConfig
from shards.dataset import ShardSet
from shards.identity import Identity
from shards.mixture import Mixture
from shards.order import Drawn, Order, OrderConfig, OrderError, Part, Position, Segment, rank_slice
from shards.plan import Kind
from shards.reader import DamagedSampleError, Fetched, SampleReader
from shards.sample_table import SampleTable
from shards.storage import Patience

BLOCKS_AHEAD = 2
"""Blocks of each lane that a rank holds: the one in use and the next."""


@dataclass(frozen=True)
class LoaderConfig:
    """What a rank reads and how far ahead."""

    order: OrderConfig = field(default_factory=OrderConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    patience: Patience = field(default_factory=Patience)
    ahead: int = 3
    """Batches prepared before they are asked for."""
    connections: int = 8
    """Ranges read at once."""
    tolerated_damage: int = 0
    """Damaged samples, over all ranks since the start, that are named and left out with weight 0; one more ends the run."""

    def __post_init__(self) -> None:
        for name, least in {"ahead": 1, "connections": 1, "tolerated_damage": 0}.items():
            if getattr(self, name) < least:
                raise OrderError(f"data.loader.{name}: expected at least {least}, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one rank takes of one global batch. n places on every rank; surplus ones have weight 0."""

    keys: list[str]
    """Of the samples, empty for padding and for what is damaged."""
    weight: NDArray[np.float32]
    """(n,) 1 for a sample, 0 for padding and for what is damaged."""
    damaged: list[str]
    """A sentence for each sample that was left out because it is damaged."""
    position: Position
    """Where reading stands after this batch."""
    wait_s: float = 0.0
    """Seconds that the caller waited for it."""


BatchT = TypeVar("BatchT", bound=Batch)


@dataclass
class Chosen:
    """What fills one rank's share of a batch, and where it is read from."""

    drawn: Drawn
    """At most n of what the order counts: samples, or packs of samples."""
    fetched: list[Fetched]
    """(at most n,) the block of each."""


@dataclass
class _Block:
    drawn: Drawn
    fetched: Fetched
    left: int
    """Of what this rank wants of it, what was not used yet."""


def read_ahead_bytes(mixture: Mixture, order: OrderConfig, world_size: int) -> int:
    """Memory of the blocks that a rank holds of shards in another store: lanes x blocks x samples x mean bytes of a sample."""
    # A rank whose border lies inside a lane reads that lane too.
    lanes = min(order.lanes, -(-order.lanes // world_size) + (order.lanes % world_size > 0))
    taken = mixture.taken([part.index.num_rows for part in mixture.parts])
    mean = np.average([np.mean(part.index["bytes"].to_numpy()) for part in mixture.parts], weights=taken)
    return int(min(BLOCKS_AHEAD * lanes * order.block, sum(taken)) * mean)


class SampleStream(ABC, Generic[BatchT]):
    """Endless batches of one rank.

    Args:
        data: the samples to read, already filtered.
        config: order and read-ahead.
        rank: which part of each global batch to take.
        world_size: of how many.
        start: where to begin; `order.restore(state)` after a restart.

    Raises:
        DatasetError: a data set holds samples of another kind.
        OrderError: the samples do not fill one batch.
    """

    kind: ClassVar[Kind]
    """Of the samples that it reads."""
    reads: ClassVar[str]
    """The same in words."""

    def __init__(
        self,
        data: ShardSet | Mixture,
        config: LoaderConfig,
        rank: int = 0,
        world_size: int = 1,
        start: Position = Position(),
    ) -> None:
        self.mixture = Mixture.of(data)
        self.mixture.require_kind(self.kind, f"a loader of {self.reads}")
        self.config = config
        self.table = SampleTable(self.mixture)
        self.order = self._order()
        self.start = start
        self._slice = rank_slice(config.order.global_batch, rank, world_size)
        self.width = -(-config.order.global_batch // world_size)
        """Places of this rank's share of a batch, padding among them: the same on every rank."""
        self._damaged: set[int] = set()

    @abstractmethod
    def _batch(self, chosen: Chosen, position: Position) -> BatchT:
        """A batch of `self.width` places from at most as many that were chosen."""

    def _order(self) -> Order:
        """The order of what fills batches: here of samples."""
        return self._order_of(self.table.shard_of_part, self.mixture.identity)

    def _order_of(self, shard_of_part: Sequence[NDArray[np.int64]], identity: Identity) -> Order:
        """The order of what lies in these shards, as often as the mixture takes it."""
        taken = self.mixture.taken([len(part) for part in shard_of_part])
        parts = [Part(part, count) for part, count in zip(shard_of_part, taken, strict=True)]
        return Order(parts, self.config.order, identity)

    def _rows(self, drawn: Drawn) -> NDArray[np.int64]:
        """Rows of the table that are read for what was drawn."""
        return drawn.samples

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return self.order.batches

    def __iter__(self) -> Iterator[BatchT]:
        """Batches from the start position on, without end; see `take`."""
        return self.take(None)

    def take(self, batches: int | None) -> Iterator[BatchT]:
        """So many batches from the start position on; nothing beyond them is read. The threads end with the iterator."""
        prepared: queue.Queue[BatchT | BaseException | None] = queue.Queue(self.config.ahead)
        ended = threading.Event()
        reader = SampleReader(self.table, self.config.connections, self.config.cache.open())

        def hand_over(item: BatchT | BaseException | None) -> None:
            while not ended.is_set():
                try:
                    return prepared.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def read_ahead() -> None:
            try:
                for batch in self._batches(reader, batches):
                    if ended.is_set():
                        return
                    hand_over(batch)
                hand_over(None)
            except BaseException as error:  # handed to the caller, who raises it
                hand_over(error)

        thread = threading.Thread(target=read_ahead, name="sample-stream", daemon=True)
        thread.start()
        try:
            while True:
                asked = time.perf_counter()
                item = prepared.get()
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield replace(item, wait_s=time.perf_counter() - asked)
        finally:
            ended.set()
            reader.close()
            thread.join()

    def read(self, row: int, fetched: Fetched, damaged: list[str]) -> memoryview | None:
        """A sample's bytes, good until the next one is read; None, with a sentence in `damaged`, where they are damaged.

        Raises:
            DamagedSampleError: more samples are damaged than the configuration tolerates.
            StorageError: the store does not answer.
        """
        try:
            return fetched.read(row)
        except DamagedSampleError as error:
            self._damaged.add(row)
            if len(self._damaged) > self.config.tolerated_damage:
                raise
            damaged.append(str(error))
            return None

    def _batches(self, reader: SampleReader, count: int | None) -> Iterator[BatchT]:
        upcoming: deque[tuple[Position, list[Segment]]] = deque()
        blocks: dict[tuple[int, int, int], _Block] = {}
        lanes: set[int] = set()

        def ready() -> BatchT:
            position, segments = upcoming.popleft()
            return self._batch(self._take(blocks, position.epoch, segments), Position(position.epoch, position.batch + 1))

        for position in itertools.islice(self.order.positions(self.start), count):
            segments = self.order.segments(position.batch, *self._slice)
            upcoming.append((position, segments))
            for segment in segments:
                lanes.add(segment.lane)
                name = (position.epoch, segment.lane, segment.block)
                if name not in blocks:
                    blocks[name] = self._fetch(reader, *name)
            while upcoming and len(blocks) >= BLOCKS_AHEAD * len(lanes):
                yield ready()
        while upcoming:
            yield ready()

    def _fetch(self, reader: SampleReader, epoch: int, lane: int, number: int) -> _Block:
        drawn = self.order.block(epoch, lane, number)
        from_batch = self.start.batch if epoch == self.start.epoch else 0
        wanted = self.order.wanted(lane, number, *self._slice, from_batch)
        return _Block(drawn, reader.fetch(self._rows(drawn.taken(wanted))), int(wanted.sum()))

    def _take(self, blocks: dict[tuple[int, int, int], _Block], epoch: int, segments: list[Segment]) -> Chosen:
        parts: list[Drawn] = []
        fetched: list[Fetched] = []
        for segment in segments:
            name = (epoch, segment.lane, segment.block)
            block = blocks[name]
            count = segment.stop - segment.start
            parts.append(block.drawn.taken(slice(segment.start, segment.stop)))
            fetched += [block.fetched] * count
            block.left -= count
            if block.left == 0:
                del blocks[name]
        return Chosen(Drawn.joined(parts), fetched)
