"""Where a model or tokenizer folder comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgchat.errors import ModelError
from jobs.config import ConfigError
from shards.storage import local_folder


def local_source(folder: str) -> str:
    """A folder that transformers can read: a local one as it is, a store's downloaded, a hub id unchanged.

    Raises:
        ConfigError: a local folder that is not there.
        StorageError: nothing lies below the URI.
    """
    if "://" in folder:
        return str(local_folder(folder))
    path = Path(folder).expanduser()
    if path.exists():
        return str(path.absolute())
    if folder.startswith(("/", ".", "~")) or folder.count("/") > 1:
        raise ConfigError(f"{folder}: no such folder; name a folder, a URI such as s3://bucket/folder, or a hub id")
    return folder


@contextmanager
def reading(folder: str, what: str) -> Iterator[None]:
    """Turn what transformers says of a folder that it cannot read into one sentence.

    Raises:
        ConfigError: the folder holds no such thing.
    """
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())[:160]
        raise ConfigError(
            f"{folder}: no {what} can be read from it ({cause}); check the folder, the URI or the hub id"
        ) from error


def source_digest(folder: str) -> str:
    """Names the weights of a folder or hub id, whatever path they lie under.

    Args:
        folder: as `local_source` gave it.

    Returns:
        sha256 over names and bytes of a local folder's files; for a hub id, that and its commit.
    """
    path = Path(folder)
    if not path.is_dir():
        from transformers import AutoConfig

        return f"{folder}@{AutoConfig.from_pretrained(folder)._commit_hash}"
    content = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        # A card may be written again with results; weights, configuration and tokenizer make the model.
        if file.is_file() and file.suffix != ".md":
            with file.open("rb") as opened:
                content.update(f"{file.relative_to(path)}\0{hashlib.file_digest(opened, 'sha256').hexdigest()}\0".encode())
    return content.hexdigest()
