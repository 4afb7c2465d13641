"""Where a model or tokenizer folder comes from."""

from __future__ import annotations

from pathlib import Path

from shards.storage import local_folder


def local_source(folder: str) -> str:
    """A folder that transformers can read: a local one as it is, a store's downloaded, a hub id unchanged."""
    if "://" in folder:
        return str(local_folder(folder))
    return str(Path(folder).absolute()) if Path(folder).exists() else folder
