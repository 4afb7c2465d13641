"""What a case must not do: open what is not in its corpus, write, connect, start programs, unpickle.

Files that the HDF5 library opens do not pass here; that their signal comes from the corpus is told from the lures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[3]
OWN = tuple(
    os.path.realpath(folder) + os.sep for folder in {sys.prefix, sys.base_prefix, str(PROJECT), os.path.dirname(os.__file__)}
)
"""Where Python, the packages and the project lie: a module may be imported in the middle of a case."""
READABLE = ("/usr/lib/", "/usr/share/", "/lib/", "/proc/self/", "/sys/devices/system/cpu", "/proc/cpuinfo", "/proc/meminfo")
"""What libraries look up on their own account."""

READING = {"open", "os.listdir", "os.scandir"}
FORBIDDEN = (
    *("socket.", "urllib.", "http.", "ftplib.", "subprocess.", "os.system", "os.exec", "os.fork", "os.spawn", "os.posix_spawn"),
    *(
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "os.chown",
        "shutil.",
    ),
    *("pickle.", "tempfile.", "webbrowser.", "os.putenv", "os.chdir"),
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_allowed: str | None = None
_trespasses: list[str] = []


@contextmanager
def kept_within(folder: Path) -> Iterator[list[str]]:
    """While it lasts, what goes beyond `folder` is refused with a `PermissionError` and noted in the list that it gives."""
    global _allowed
    _install()
    _trespasses.clear()
    _allowed = os.path.realpath(folder)
    try:
        yield _trespasses
    finally:
        _allowed = None


_installed = False


def _install() -> None:
    """An audit hook stays for the life of the process."""
    global _installed
    if not _installed:
        sys.addaudithook(_watch)
        _installed = True


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _allowed is None:
        return
    if event in READING:
        _check_path(event, arguments)
    elif event.startswith(FORBIDDEN):
        _refuse(f"{event} {arguments!r:.200}")


def _check_path(event: str, arguments: tuple[Any, ...]) -> None:
    path = arguments[0]
    if isinstance(path, int) or (path is not None and "\0" in os.fsdecode(path)):
        return
    real = os.getcwd() if path is None else os.path.realpath(os.fsdecode(path))
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
        _refuse(f"writing {real}")
    elif real != _allowed and not real.startswith((f"{_allowed}{os.sep}", *OWN, *READABLE)):
        _refuse(f"{event} {real}")


def _refuse(what: str) -> None:
    _trespasses.append(what)
    raise PermissionError(f"refused by the guard: {what}")
