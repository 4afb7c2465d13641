"""A folder on the local disk for one process: gone when the process is, if not by itself then by the next one on the node."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "ecgchat-scratch-"
LOCK = ".lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder below the system's temporary one (`TMPDIR`), removed at the end.

    A process that is killed removes nothing, and a checkpoint's copy may be large: what dead processes left is removed
    first. The system drops the lock on a folder with the process that holds it.
    """
    remove_abandoned()
    making = Path(tempfile.mkdtemp(prefix="ecgchat-making-"))
    lock = os.open(making / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Nobody sees it by the name that is looked for before it is locked.
    folder = making.rename(making.with_name(making.name.replace("ecgchat-making-", PREFIX)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> None:
    """Remove this user's scratch folders whose processes are dead."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # another user's, or one that is just being removed
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
