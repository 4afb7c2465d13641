"""Bytes of shards that are at hand: in a file of this machine, or in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from shards.storage import MissingObject, StorageError


class Extent(Protocol):
    """A range of one shard."""

    def read(self, offset: int, length: int, scratch: bytearray) -> memoryview:
        """`length` bytes from byte `offset` of the shard on; in `scratch`, which is long enough, or where they are already.

        One scratch for all samples stays in the processor's cache, so that checking and copying a sample is nearly free.
        """
        ...


class FileExtent:
    """A range of a shard that is a local file.

    Read with `preadv`, and not from a memory map: where the file is cut or its disk fails, a map ends the process.

    Args:
        path: the file.
        start: where the range begins, so that the system reads it ahead.
        length: of the range.

    Raises:
        MissingObject: there is no such file.
    """

    def __init__(self, path: Path, start: int, length: int) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise MissingObject(f"file://{path}: no such object; copy or build the shards again") from error
        except OSError as error:
            raise StorageError(
                f"file://{path}: cannot be opened ({error.strerror}); check the disk and its access rights"
            ) from error
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, start, length, os.POSIX_FADV_WILLNEED)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, offset: int, length: int, scratch: bytearray) -> memoryview:
        """See `Extent`; raises `StorageError` where the file ends before or cannot be read."""
        return read_file(self._file, offset, length, scratch, self._path)


class MemoryExtent:
    """A range of a shard that was fetched.

    Args:
        body: its bytes.
        start: where in the shard they lie.
    """

    def __init__(self, body: bytes | memoryview, start: int) -> None:
        self._body = memoryview(body)
        self._start = start

    def read(self, offset: int, length: int, scratch: bytearray) -> memoryview:
        """See `Extent`."""
        del scratch
        return self._body[offset - self._start : offset - self._start + length]


def read_file(file: int, offset: int, length: int, scratch: bytearray, path: Path) -> memoryview:
    """`length` bytes of an open file, read into `scratch`.

    Raises:
        StorageError: it ends before, or the disk fails.
    """
    target = memoryview(scratch)[:length]
    try:
        found = os.preadv(file, [target], offset)
    except OSError as error:
        raise StorageError(f"file://{path}: cannot be read at byte {offset} ({error.strerror}); check the disk") from error
    if found != length:
        raise StorageError(
            f"file://{path}: expected {length} bytes from byte {offset}, found {found}; the shard was cut: copy or build it "
            "again"
        )
    return target
