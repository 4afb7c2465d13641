"""The tar files themselves: samples to bytes and back, the same bytes for the same samples.

Members are plain USTAR entries without owner or time, so that a shard depends on its samples alone and any tar or
WebDataset reader opens it. One sample is a run of adjacent members with one key, which makes it a byte range.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xxhash

BLOCK = tarfile.BLOCKSIZE
END_OF_ARCHIVE = bytes(2 * BLOCK)


class ShardFormatError(ValueError):
    """Bytes that are not what a shard holds: one sentence."""


def add_sample(shard: bytearray, key: str, members: Mapping[str, bytes]) -> dict[str, int]:
    """Append the tar entries of one sample to a shard.

    Args:
        shard: grows by the entries.
        key: name of the sample, without a dot.
        members: extension → bytes; they stand in the order of their names.

    Returns:
        What the index says of the place: `offset`, `bytes`, and `xxh3` of those bytes.
    """
    offset = len(shard)
    for extension, body in sorted(members.items()):
        entry = tarfile.TarInfo(f"{key}.{extension}")
        entry.size = len(body)
        shard += entry.tobuf(tarfile.USTAR_FORMAT)
        shard += body
        shard += bytes(-entry.size % BLOCK)
    with memoryview(shard) as view:
        return {"offset": offset, "bytes": len(shard) - offset, "xxh3": checksum(view[offset:])}


def checksum(body: memoryview | bytes) -> int:
    """XXH3-64: finds damage in a sample at many times the speed of a network; the manifest's sha256 guards the whole shard."""
    return xxhash.xxh3_64_intdigest(body)


def unpack_samples(body: bytes | memoryview, where: str) -> Iterator[tuple[str, dict[str, memoryview]]]:
    """Samples of a byte range that begins with one: (key, extension → bytes).

    Raises:
        ShardFormatError: the range does not hold whole tar entries.
    """
    view = memoryview(body)
    position = 0
    key = ""
    members: dict[str, memoryview] = {}
    while position < len(view) and any(view[position : position + BLOCK]):
        try:
            entry = tarfile.TarInfo.frombuf(bytes(view[position : position + BLOCK]), "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise ShardFormatError(
                f"{where}: expected a tar entry {position} bytes in, found none ({error}); verify and rebuild the shards"
            ) from error
        stem, _, extension = entry.name.partition(".")
        start = position + BLOCK
        if start + entry.size > len(view):
            raise ShardFormatError(f"{where}: entry {entry.name} is cut; verify and rebuild the shards")
        if stem != key:
            if members:
                yield key, members
            key, members = stem, {}
        members[extension] = view[start : start + entry.size]
        position = start + entry.size + -entry.size % BLOCK
    if members:
        yield key, members


def decode_array(body: memoryview | bytes) -> np.ndarray[Any, Any]:
    """An `.npy` member as an array that shares its memory; never unpickles.

    Raises:
        ShardFormatError: it is no `.npy` file of version 1, or is cut.
    """
    try:
        file = io.BytesIO(body[: min(len(body), 4096)])
        np.lib.format.read_magic(file)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        array = np.frombuffer(body, dtype=dtype, count=int(np.prod(shape)), offset=file.tell())
    except ValueError as error:
        raise ShardFormatError(f"an .npy member cannot be read ({error}); verify and rebuild the shards") from error
    return array.reshape(shape, order="F" if fortran else "C")


def decode_json(body: memoryview | bytes) -> dict[str, Any]:
    """A `.json` member as a dictionary."""
    try:
        value = json.loads(bytes(body))
    except ValueError as error:
        raise ShardFormatError(f"a .json member cannot be read ({error}); verify and rebuild the shards") from error
    if not isinstance(value, dict):
        raise ShardFormatError("a .json member is not an object; verify and rebuild the shards")
    return value
