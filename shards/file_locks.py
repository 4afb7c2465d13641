"""Locks on bytes of a file, and files that are in use, between processes and threads of a node.

    fd = open_in_use(path, length)                          # `remove_unless_in_use(path)` is False until it is closed
    with reopen(fd) as file, locked(file.fileno(), 0, 5):   # no other process or thread is in here for any of bytes 0 to 4

The bytes need not exist. Locks are of an open file description: two opens exclude each other within a process too, and the
kernel releases a lock when the last descriptor of its description is closed, however its owner dies. A forked child has
the parent's descriptors, hence holds their locks on until it closes them or ends.

On a file system that knows no locks, as NFS may be mounted, nothing is locked and nothing is in use. Linux only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

IN_USE = 2**62
"""The byte, far behind any file's end, that each open of `open_in_use` holds a shared lock on."""


@contextmanager
def locked(fd: int, start: int, length: int) -> Iterator[None]:
    """Have bytes [start, start + length) alone among all open file descriptions; waits for them.

    Args:
        fd: open for writing, by a description that no other thread locks through: one description never excludes itself.
        start: first byte.
        length: number of bytes.
    """
    _lock(fd, fcntl.F_WRLCK, start, length)
    try:
        yield
    finally:
        # Said, and not left to the descriptor's end: a child forked meanwhile has the same description.
        _lock(fd, fcntl.F_UNLCK, start, length)


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Have a file alone among the callers of this, made where it is absent; waits for it.

    Raises:
        OSError: it cannot be opened or made.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with locked(fd, 0, 1):
            yield
    finally:
        os.close(fd)


def reopen(fd: int) -> FileIO:
    """The same inode, whatever its path names now, by a description of its own.

    Raises:
        OSError: it cannot be opened.
    """
    return open(f"/proc/self/fd/{fd}", "r+b", buffering=0)


def open_in_use(path: Path, length: int) -> int:
    """Open a file, new where it is absent or of another length, and hold it in use until the descriptor is closed.

    Raises:
        OSError: it cannot be opened or made.
    """
    with suppress(FileNotFoundError):
        if path.stat().st_size != length:
            path.unlink()
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if os.fstat(fd).st_size != length:
            os.ftruncate(fd, length)
        _lock(fd, fcntl.F_RDLCK, IN_USE, 1)
        os.utime(fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def remove_unless_in_use(path: str) -> bool:
    """Remove a file and say whether that was done. The caller sees to it that nobody opens it meanwhile.

    Raises:
        OSError: it cannot be opened or removed.
    """
    fd = os.open(path, os.O_RDWR)
    try:
        if free := _lock(fd, fcntl.F_WRLCK, IN_USE, 1, wait=False):
            os.unlink(path)
        return free
    finally:
        os.close(fd)


def _lock(fd: int, kind: int, start: int, length: int, wait: bool = True) -> bool:
    """Lock bytes for an open file description. False where another has them, True also where there are no locks."""
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(fd, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True
