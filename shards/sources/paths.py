"""Names of files as a corpus's tables and headers give them: they stay within the corpus."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from shards.record import RecordError

LONGEST = 400
"""Characters of a name with all its folders, so that a sentence can repeat it."""
LONGEST_PART = 200
"""Bytes in the name of a file or folder, with room for an extension; file systems take 255."""


def within(folder: Path, name: str, where: str) -> Path:
    """The path of `name` below `folder`.

    Raises:
        RecordError: the name is empty, absolute or leads out of the folder; the sentence names `where`, the file and field.
    """
    path = PurePosixPath(name.strip())
    too_long = len(name) > LONGEST or any(len(part.encode()) > LONGEST_PART for part in path.parts)
    odd = not name.isprintable() or "\\" in name
    if not path.parts or path.is_absolute() or ".." in path.parts or odd or too_long:
        raise RecordError(f"{where}: expected a path below {folder.name}, found {name[:120]!r}; mend the table")
    return folder / path
