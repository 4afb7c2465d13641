"""Parts of shards on a local disk, shared by all ranks and jobs of a node.

    cache = ShardCache(Path("/local/cache"), limit_bytes=50 * 10**9)
    shard = cache.open(sha256, size)
    if shard.ensure(start, stop, fetch):
        os.preadv(shard.fd, [buffer], start)

Each shard is one sparse file: its bytes at their own offsets, and behind them one byte for each chunk that says whether
the chunk is there. Both are one inode, so what a descriptor says of a chunk is of the data that this descriptor reads, even
where the file was evicted and made again. A chunk's room is reserved, then its data is written, then its byte; a process
killed in between leaves a chunk that is fetched again.

Processes and threads meet in `shards.file_locks`: on the chunks' bytes while they are fetched, on a shard while it is open,
on the file `lock` while shards are opened, evicted or given room. Where a file system knows no locks, what is read stays
right; chunks may then be fetched twice, and the limit passed.

Nothing is forced to the disk: after a power cut a chunk may be said to be there that is not. The reader compares
checksums, and calls `forget`. Linux only.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import FileIO
from pathlib import Path

from shards.file_locks import locked, locked_file, open_in_use, remove_unless_in_use, reopen

CHUNK_BYTES = 8 * 2**20
FETCH_BYTES = 32 * 2**20
"""Missing chunks side by side are fetched together up to this size."""

ABSENT, RESERVED, PRESENT = range(3)
"""What a chunk's byte says: nothing, room on the disk alone, its data."""

SHARD_FILE = re.compile(r"[0-9a-f]{64}\.[0-9]+")
"""A shard's sha256 and its bytes a chunk. No other file of the folder is counted or removed."""

Fetch = Callable[[int, int], bytes | memoryview]
"""`fetch(start, length)`: that part of the shard, from its store."""


class CacheError(ValueError):
    """A cache that cannot be used as asked: one sentence."""


class _UnusableError(Exception):
    """The disk has no room or does not work: one sentence. The caller is to read without the cache."""


@dataclass(frozen=True)
class CacheConfig:
    """Where parts of shards are kept on the node."""

    folder: str | None = None
    """A folder on a local disk, which jobs may share; none: every epoch reads from the store."""
    limit_gb: float = 50.0
    """Room on the disk, in 10^9 bytes, that all shards in the folder may take.

    A process evicts what was last used before it began, never what it used itself: an epoch reads every shard once in a
    shuffled order, and most would be gone before they are read again. The rest is read from its store in every epoch."""

    def __post_init__(self) -> None:
        if self.folder == "":
            raise CacheError("data.loader.cache.folder: expected a folder or null, found an empty name")
        if not 0 < self.limit_gb < float("inf"):
            raise CacheError(f"data.loader.cache.limit_gb: expected more than 0, found {self.limit_gb:g}")

    def open(self) -> ShardCache | None:
        """The cache in that folder, the same for all loaders of a process; None where there is to be none."""
        return _of_process(Path(self.folder).expanduser(), int(self.limit_gb * 1e9)) if self.folder else None


class ShardCache:
    """The shards in one folder. Any number of these, in any number of processes, work on the same folder.

    What was used since this object was made is never evicted; of the rest, what was used least recently goes first. Where that
    leaves no room, `ensure` is False and the caller reads from the store. An epoch reads every shard once in a shuffled order:
    last use alone would evict most of them before they are read again; so, of data twice the limit, half stays for all epochs.

    Args:
        folder: made where it is absent, readable by this user alone.
        limit_bytes: blocks on the disk that the shards of the folder may take.
        chunk_bytes: what is fetched and remembered as a whole; files of another chunk size are never read.

    Raises:
        CacheError: the folder cannot be made.
    """

    def __init__(self, folder: Path, limit_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        if sys.platform != "linux":
            raise CacheError(f"data.loader.cache.folder: the cache works on Linux alone, this is {sys.platform}; leave it out")
        self.folder = folder.absolute()
        self.limit_bytes = limit_bytes
        self.chunk_bytes = chunk_bytes
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"data.loader.cache.folder: {folder} cannot be made ({error.strerror}); name a folder on a local disk"
            ) from error
        self._started = _now(self.folder)

    def open(self, sha256: str, size: int) -> CachedShard:
        """The shard with that digest and number of bytes; not evicted until it is closed.

        Where the disk does not work, `ensure` of what is returned is always False.

        Raises:
            CacheError: that is no digest.
        """
        path = self.folder / f"{sha256}.{self.chunk_bytes}"
        if not SHARD_FILE.fullmatch(path.name):
            raise CacheError(f"expected a shard's sha256 of 64 hexadecimal digits, found {sha256!r}; build the shards again")
        try:
            with self._own_disk(), self._alone():
                return CachedShard(self, open_in_use(path, size + -(-size // self.chunk_bytes)), size)
        except _UnusableError as error:
            _warn_once(str(error))
            return CachedShard(self, -1, size)

    def reserve(self, fd: int, *parts: tuple[int, int]) -> None:
        """Have blocks on the disk for parts [start, stop) of an open shard's file; older ones are evicted where they must.

        Raises:
            _UnusableError: shards in use, now or since the start, leave too little room below the limit, or the disk is full.
        """
        with self._own_disk(), self._alone():
            disk = os.fstatvfs(fd)
            block = disk.f_frsize
            need = sum(-(-stop // block) - start // block for start, stop in parts) * block
            self._make_room(need, block)
            # Asked before, since a reservation that fails half-way keeps the disk's last blocks.
            if os.fstatvfs(fd).f_bavail * block < need:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            for start, stop in parts:
                _reserve(fd, start, stop - start)

    def _make_room(self, need: int, block: int) -> None:
        """Evict what was last used before the start until `need` more bytes keep the limit."""
        files = sorted(self._files())
        # One block more for each file: its map of extents may still grow.
        free = self.limit_bytes - sum(size + block for _, size, _ in files)
        for used, size, path in files if need <= self.limit_bytes else []:
            if free >= need or used >= self._started:
                break
            if remove_unless_in_use(path):
                free += size + block
        if free < need:
            raise _UnusableError(
                f"{self.folder}: its {self.limit_bytes / 1e9:g} GB are taken by shards in use; what does not fit is read from "
                "its store in every epoch; raise data.loader.cache.limit_gb to keep more"
            )

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """(nanosecond of its last use, bytes on the disk, path) of each shard."""
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if SHARD_FILE.fullmatch(entry.name):
                    facts = entry.stat(follow_symlinks=False)
                    yield facts.st_mtime_ns, facts.st_blocks * 512, entry.path

    def _alone(self) -> AbstractContextManager[None]:
        """No other process or thread is in here for the same folder."""
        return locked_file(self.folder / "lock")

    @contextmanager
    def _own_disk(self) -> Iterator[None]:
        """Tells failures of this disk from those of a shard's store, which are for the caller."""
        try:
            yield
        except OSError as error:
            raise _UnusableError(
                f"data.loader.cache.folder: {self.folder} cannot be written ({error.strerror}); what is not there yet is read "
                "from its store every time; free its disk or name another folder"
            ) from error


class CachedShard:
    """One shard of a cache, open. `fd` reads what `ensure` said is there; threads may share both.

    Made by `ShardCache.open`.
    """

    def __init__(self, cache: ShardCache, fd: int, size: int) -> None:
        self.fd = fd
        self._cache = cache
        self._chunk = cache.chunk_bytes
        self._size = size
        self._states = bytearray(-(-size // self._chunk))
        """What is known of each chunk; the disk may know of more."""
        self._at_states = threading.Lock()
        self._usable = fd >= 0

    def ensure(self, start: int, stop: int, fetch: Fetch) -> bool:
        """Have bytes [start, stop) of the shard on the disk; chunks that are missing are fetched, each once on the node.

        Returns:
            False where there is no room or the disk does not work: the caller reads without the cache.

        Raises:
            CacheError: the range lies outside the shard, or `fetch` gave another length than it was asked for.
            Exception: whatever `fetch` raises.
        """
        chunks = self._chunks(start, stop)
        if not self._usable:
            return False
        if self._states.count(PRESENT, chunks.start, chunks.stop) == len(chunks):
            return True
        try:
            with self._reopened() as file:
                for run in self._missing(chunks):
                    with locked(file.fileno(), self._size + run.start, len(run)):
                        for rest in self._missing(run):
                            self._fill(file.fileno(), rest, fetch)
        except _UnusableError as error:
            _warn_once(str(error))
            return False
        return True

    def forget(self, start: int, stop: int) -> None:
        """Bytes [start, stop) were found damaged: `ensure` fetches their chunks again."""
        chunks = self._chunks(start, stop)
        try:
            if self._usable:
                self._mark(self.fd, chunks, RESERVED)
        except _UnusableError as error:
            # The disk still says that they are there.
            self._usable = False
            _warn_once(str(error))

    def close(self) -> None:
        """Let the shard be evicted. No thread may be reading from `fd`."""
        if self.fd >= 0:
            with suppress(OSError):
                os.utime(self.fd)
            os.close(self.fd)
        self.fd, self._usable = -1, False

    def _chunks(self, start: int, stop: int) -> range:
        if not 0 <= start <= stop <= self._size:
            raise CacheError(f"bytes {start} to {stop} of a shard of {self._size} bytes: index and manifest do not agree")
        return range(start // self._chunk, -(-stop // self._chunk) if start < stop else start // self._chunk)

    def _missing(self, chunks: range) -> Iterator[range]:
        """Runs of missing chunks, each of at most `FETCH_BYTES` or one chunk, as the disk says now."""
        with self._at_states, self._cache._own_disk():
            states = os.pread(self.fd, len(chunks), self._size + chunks.start)
            self._states[chunks.start : chunks.stop] = states.ljust(len(chunks), bytes([ABSENT]))
        most = max(1, FETCH_BYTES // self._chunk)
        missing = [chunk for chunk in chunks if self._states[chunk] != PRESENT]
        while missing:
            count = 1
            while count < min(most, len(missing)) and missing[count] == missing[0] + count:
                count += 1
            yield range(missing[0], missing[0] + count)
            del missing[:count]

    def _fill(self, fd: int, chunks: range, fetch: Fetch) -> None:
        start, stop = chunks.start * self._chunk, min(chunks.stop * self._chunk, self._size)
        if ABSENT in self._states[chunks.start : chunks.stop]:
            self._cache.reserve(fd, (start, stop), (self._size + chunks.start, self._size + chunks.stop))
            self._mark(fd, chunks, RESERVED)
        body = memoryview(fetch(start, stop - start)).cast("B")
        if len(body) != stop - start:
            raise CacheError(f"expected {stop - start} bytes of a shard from byte {start}, fetched {len(body)}")
        with self._cache._own_disk():
            while body:
                body = body[os.pwrite(fd, body, stop - len(body)) :]
        self._mark(fd, chunks, PRESENT)

    def _mark(self, fd: int, chunks: range, state: int) -> None:
        states = bytes([state]) * len(chunks)
        with self._at_states, self._cache._own_disk():
            os.pwrite(fd, states, self._size + chunks.start)
            self._states[chunks.start : chunks.stop] = states

    def _reopened(self) -> FileIO:
        """The file by a description of its own, so that locks exclude threads as they exclude processes."""
        with self._cache._own_disk():
            return reopen(self.fd)


def _now(folder: Path) -> int:
    """Nanoseconds as the folder's file system writes them, which may be coarser than the clock and behind it."""
    with suppress(OSError):
        os.utime(folder)
        return folder.stat().st_mtime_ns
    return time.time_ns()


def _reserve(fd: int, start: int, length: int) -> None:
    try:
        os.posix_fallocate(fd, start, length)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.pwrite(fd, bytes(length), start)


@cache
def _of_process(folder: Path, limit_bytes: int) -> ShardCache:
    return ShardCache(folder, limit_bytes)


_warned: set[str] = set()
_warning = threading.Lock()


def _warn_once(sentence: str) -> None:
    with _warning:
        if sentence in _warned:
            return
        _warned.add(sentence)
    logging.getLogger(__name__).warning(sentence)
