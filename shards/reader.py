"""Reading samples by row number: ranges fetched ahead and several at once, each sample compared with its checksum.

    fetched = reader.fetch(rows)     neighbouring samples join in one range; ranges are fetched in the background
    fetched.read(row)                the sample's bytes, as the index knows them, or `DamagedSampleError`

A store that fails is asked again until its patience ends (`shards.storage`); bytes that are not the index's are fetched again,
past all caches, before the sample is called damaged.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.cache import CachedShard, Fetch, ShardCache
from shards.extent import Extent, FileExtent, MemoryExtent, read_file
from shards.sample_table import SampleTable, ShardPlace
from shards.storage import MissingObject, StorageError
from shards.tar import ShardFormatError, checksum

GAP_BYTES = 2**20
"""Between two samples that are fetched together: reading so many bytes for nothing costs less than another request."""

REQUEST_BYTES = 8 * 2**20
"""About what one request fetches; a block is several."""

REREADS = 2
"""Times that a sample with wrong bytes is fetched again before it is called damaged."""


class DamagedSampleError(ShardFormatError):
    """A sample whose bytes are not those of the index, or whose shard is not there: one sentence with the shard's name."""


class SampleReader:
    """Fetches ranges of shards.

    Args:
        table: where samples lie.
        connections: ranges under way at once.
        cache: for shards of other stores; None reads them into memory.
    """

    def __init__(self, table: SampleTable, connections: int, cache: ShardCache | None = None) -> None:
        self.table = table
        self._cache = cache
        self._scratch = bytearray(int(table.bytes.max(initial=0)))
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="shard-range")
        self._ended = threading.Event()
        self._failure: StorageError | None = None

    def close(self) -> None:
        """End the threads, from any thread: an attempt under way is waited for, nothing else is begun or tried again."""
        self._ended.set()
        self._pool.shutdown(cancel_futures=True)

    def fetch(self, rows: NDArray[np.int64]) -> Fetched:
        """Start to read some rows; returns at once."""
        runs = self._runs(np.unique(rows))
        return Fetched(self, [int(run[0]) for run in runs], [self._pool.submit(self._extent, run) for run in runs])

    def _runs(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Sorted rows cut where the shard changes, the gap is wide, or a request grows large."""
        table = self.table
        offset, shard = table.offset[rows], table.shard[rows]
        ends = offset + table.bytes[rows]
        apart = (np.diff(shard) != 0) | (offset[1:] - ends[:-1] > GAP_BYTES)
        apart |= np.diff((offset - offset[:1]) // REQUEST_BYTES) != 0
        return [run for run in np.split(rows, np.flatnonzero(apart) + 1) if len(run)]

    def _extent(self, run: NDArray[np.int64]) -> Extent:
        table, place = self.table, self.table.place(run[0])
        start = int(table.offset[run[0]])
        stop = int(table.offset[run[-1]] + table.bytes[run[-1]])
        path = place.store.local_path(place.name)
        if path is not None:
            return FileExtent(path, start, stop - start)
        if self._cache is not None:
            cached = _CachedExtent(self._cache.open(place.sha256, place.bytes), self._cache.folder)
            if cached.ensure(start, stop, lambda first, length: self._get(place, first, length)):
                return cached
        return MemoryExtent(self._get(place, start, stop - start), start)

    def _get(self, place: ShardPlace, start: int, length: int) -> bytes:
        """A range from its store. What the store cannot give ends the run: all others fail with it at once, for else each
        would wait as long, one after the other."""
        if self._failure:
            raise self._failure
        try:
            return place.store.get_range(place.name, start, length, self._ended)
        except MissingObject:
            raise
        except StorageError as error:
            self._failure = self._failure or error
            self._ended.set()
            raise self._failure from error.__cause__

    def read(self, row: int, extent: Extent) -> memoryview:
        """A sample's bytes; see `Fetched.read`."""
        table = self.table
        offset, length, expected = int(table.offset[row]), int(table.bytes[row]), int(table.xxh3[row])
        body = extent.read(offset, length, self._scratch)
        for _ in range(REREADS):
            if checksum(body) == expected:
                return body
            body = self._again(table.place(row), extent, offset, length).read(offset, length, self._scratch)
        if checksum(body) != expected:
            raise DamagedSampleError(
                f"{table.place(row).uri}: the bytes of sample {table.keys([row])[0]} are not those that the index was made "
                "for; the shard was damaged or replaced: verify and copy or build it again"
            )
        return body

    def _again(self, place: ShardPlace, extent: Extent, offset: int, length: int) -> Extent:
        if isinstance(extent, _CachedExtent):
            extent.forget(offset, length)
        return MemoryExtent(self._get(place, offset, length), offset)


class Fetched:
    """Rows that are at hand, or on their way.

    Args:
        reader: that fetches them.
        firsts: first row of each range, sorted.
        extents: the ranges.
    """

    def __init__(self, reader: SampleReader, firsts: Sequence[int], extents: Sequence[Future[Extent]]) -> None:
        self._reader, self._firsts, self._extents = reader, firsts, extents

    def read(self, row: int) -> memoryview:
        """A sample's bytes, good until the next sample is read; waits where they are on their way.

        Raises:
            DamagedSampleError: the shard is not there, or does not hold what the index says, however often it is read.
            StorageError: the store does not answer.
        """
        extent = self._extents[bisect_right(self._firsts, row) - 1]
        try:
            return self._reader.read(row, extent.result())
        except MissingObject as error:
            raise DamagedSampleError(str(error)) from error


class _CachedExtent:
    """A range of a shard that lies in the local cache."""

    def __init__(self, cached: CachedShard, path: Path) -> None:
        self._cached, self._path = cached, path

    def __del__(self) -> None:
        self._cached.close()

    def ensure(self, start: int, stop: int, fetch: Fetch) -> bool:
        return self._cached.ensure(start, stop, fetch)

    def read(self, offset: int, length: int, scratch: bytearray) -> memoryview:
        return read_file(self._cached.fd, offset, length, scratch, self._path)

    def forget(self, offset: int, length: int) -> None:
        self._cached.forget(offset, offset + length)
