"""Names of files as a corpus's tables and headers give them: they stay within the corpus."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from shards.record import RecordError


def within(folder: Path, name: str, where: str) -> Path:
    """The path of `name` below `folder`.

    Raises:
        RecordError: the name is empty, absolute or leads out of the folder; the sentence names `where`, the file and field.
    """
    path = PurePosixPath(name.strip())
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise RecordError(f"{where}: expected a path below {folder.name}, found {name[:120]!r}; mend the table")
    return folder / path
