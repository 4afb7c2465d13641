"""Folders of files: walked in one order, through links, each folder once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from shards.record import RecordError


def walk(folder: Path) -> Iterator[tuple[PurePath, list[str]]]:
    """Each folder below `folder`, itself first: its path relative to it, and the names of its files, sorted.

    Raises:
        RecordError: there is no such folder.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder; check DIR")
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield PurePath(place).relative_to(folder), sorted(names)
