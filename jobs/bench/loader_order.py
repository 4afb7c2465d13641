"""What the order of many samples costs: wherever it is resumed, for however many ranks, and in memory.

The index is that of a corpus of which nothing exists: no sample is read.
"""

from __future__ import annotations

import functools
import tracemalloc
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.bench.rows import Row, against_cost, seconds_in_turn
from shards.dataset import INDEX_SCHEMA, ShardSet
from shards.order import Order, OrderConfig, Part, Position, rank_slice
from shards.storage import Store
from shards.stream import Batch, Chosen, LoaderConfig, SampleStream

SAMPLES_PER_SHARD = 512
SAMPLE_BYTES = 12 * 5000 * 2 + 4096

BATCHES = 200
MANY_RANKS = LoaderConfig(OrderConfig(global_batch=4096, lanes=1024))
"""As one would set it for 1,024 ranks, and then run it on any number."""


class NothingRead(SampleStream[Batch]):
    """A loader that does all but read: its order, its position, and what it would fetch."""

    kind = "ecg"
    reads = "ECGs"

    def _batch(self, chosen: Chosen, position: Position) -> Batch:
        return Batch(keys=[], weight=np.zeros(self.width, np.float32), damaged=[], position=position)


def rank_rows(order: Order, start: Position, batches: int, rank: int, world_size: int) -> list[NDArray[np.int64]]:
    """Rows that a rank reads for its next batches, found as a loader finds them."""
    first, last = rank_slice(order.config.global_batch, rank, world_size)
    blocks: dict[tuple[int, int, int], NDArray[np.int64]] = {}
    rows = []
    for position in islice(order.positions(start), batches):
        before, blocks = blocks, {}
        for segment in order.segments(position.batch, first, last):
            name = (position.epoch, segment.lane, segment.block)
            blocks[name] = before[name] if name in before else order.block(*name).samples
            rows.append(blocks[name][segment.start : segment.stop])
    return rows


def order_rows(folder: Path, samples: int, times: int) -> list[Row]:
    """All rows about the order.

    Args:
        folder: below which no shards are.
        samples: of the index.
        times: how often each is measured.
    """
    data = large_set(folder, samples)
    return [*resuming(data, 4 * times), over_ranks(data, times), memory(data)]


def resuming(data: ShardSet, times: int) -> list[Row]:
    """Time to the first batch from two places of an epoch: the order by itself, and a loader that reads nothing."""
    config = LoaderConfig(OrderConfig(global_batch=64))
    order = NothingRead(data, config).order
    shard_of = np.arange(len(data.index)) // SAMPLES_PER_SHARD

    def order_alone(batch: int) -> None:
        new = Order([Part(shard_of, len(shard_of))], config.order, data.identity)
        start = new.restore(order.state(Position(0, batch)))
        new.batch_samples(start.epoch, start.batch)

    def whole_loader(batch: int) -> None:
        next(iter(NothingRead(data, config, start=order.restore(order.state(Position(0, batch))))))

    late = order.batches * 99 // 100
    rows = []
    for name, begin in (("order alone", order_alone), ("a loader's start", whole_loader)):
        works = {"late": functools.partial(begin, late), "early": functools.partial(begin, 0)}
        milliseconds = {work: 1e3 * seconds for work, seconds in seconds_in_turn(works, times).items()}
        title = f"first batch at 99 % of {order.samples:,} samples, against 0 %: {name}"
        rows.append(against_cost(title, milliseconds["late"], milliseconds["early"], "ms", 0.85))
    return rows


def over_ranks(data: ShardSet, times: int) -> Row:
    """What a rank of many pays for its order beside a rank of few; both in the middle of the ranks."""
    order = NothingRead(data, MANY_RANKS).order
    works = {ranks: functools.partial(rank_rows, order, Position(), BATCHES, ranks // 2, ranks) for ranks in (1024, 8)}
    seconds = seconds_in_turn({str(ranks): work for ranks, work in works.items()}, times)
    name = f"order of {BATCHES} batches for a rank of 1,024, against one of 8"
    return against_cost(name, 1e3 * seconds["1024"], 1e3 * seconds["8"], "ms", 0.9)


def memory(data: ShardSet) -> Row:
    """The most that one of eight ranks holds over the last quarter of an epoch, beside the first."""
    batches = NothingRead(data, MANY_RANKS).batches

    def megabytes(start: int) -> float:
        stream = NothingRead(data, MANY_RANKS, rank=4, world_size=8, start=Position(0, start))
        tracemalloc.start()
        for _ in islice(stream, batches // 4):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak / 1e6

    early, late = megabytes(0), megabytes(batches - batches // 4)
    return against_cost("memory of a rank late in an epoch, against early", late, early, "MB", 0.9)


def large_set(folder: Path, samples: int) -> ShardSet:
    """An index of many samples whose shards do not exist."""
    number = np.arange(samples)
    names = [f"train-{shard:06d}.tar" for shard in range(-(-samples // SAMPLES_PER_SHARD))]
    known = {
        "key": np.char.mod("%07d", number),
        "shard": np.array(names)[number // SAMPLES_PER_SHARD],
        "offset": number % SAMPLES_PER_SHARD * SAMPLE_BYTES,
        "bytes": np.full(samples, SAMPLE_BYTES),
        "xxh3": number.astype(np.uint64),
    }
    nothing = {field.name: pa.nulls(samples, field.type) for field in INDEX_SCHEMA}
    table = pa.table({name: known.get(name, column) for name, column in nothing.items()}, schema=INDEX_SCHEMA)
    sizes = {"bytes": SAMPLES_PER_SHARD * SAMPLE_BYTES}
    shards = [{"name": name, "sha256": f"{shard:064x}", **sizes} for shard, name in enumerate(names)]
    return ShardSet(Store(str(folder)), {"kind": "ecg", "index": {"sha256": "0" * 64}, "shards": shards}, table)
