"""Chunks of an HDF5 dataset, inflated within the bounds that the dataset sets.

Where a chunk holds less than its dataset says, HDF5 (2.0) gives whatever lies in memory behind it, or ends the process; where
it holds more, it takes the memory that the chunk claims. So chunks are read as they are stored, and undone here.
"""

from __future__ import annotations

import itertools
import math
import zlib
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE}
"""Those that are undone here."""

BOOKKEEPING = 512
"""Bytes that a compressed chunk may take beyond twice its values; more of them decode to more than it holds."""


@dataclass(frozen=True)
class _Layout:
    """How a dataset is stored in chunks; asked once, as each property of a dataset is looked up in the file."""

    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    filters: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Of a chunk as it is used."""
        return math.prod(self.chunk) * self.dtype.itemsize


def read_chunks(dataset: h5py.Dataset, start: int, part: tuple[int, ...]) -> NDArray[Any]:
    """The part of a dataset in chunks that begins at `start` of its first axis; fill values where a chunk is not stored.

    Raises:
        ValueError: a chunk does not hold what the dataset says; h5py may raise more over a damaged file.
    """
    layout = _Layout(dataset.chunks, dataset.dtype, tuple(filters_of(dataset)))
    array = np.full(part, dataset.fillvalue, layout.dtype)
    first_axis = range(start - start % layout.chunk[0], start + part[0], layout.chunk[0])
    others = (range(0, size, step) for size, step in zip(part[1:], layout.chunk[1:], strict=True))
    for place in itertools.product(first_axis, *others):
        values = _chunk(dataset.id, layout, place)
        if values is not None:
            first = place[0] - start
            values = values[max(0, -first) :]
            here = tuple(slice(at, at + size) for at, size in zip((max(0, first), *place[1:]), values.shape, strict=True))
            room = array[here]
            room[...] = values[tuple(slice(size) for size in room.shape)]
    return array


def _chunk(dataset: h5py.h5d.DatasetID, layout: _Layout, place: tuple[int, ...]) -> NDArray[Any] | None:
    """The chunk that begins at `place`, or None where it is not stored."""
    info = dataset.get_chunk_info_by_coord(place)
    if info.byte_offset is None:
        return None
    if not 0 < info.size <= 2 * layout.bytes + BOOKKEEPING:
        raise ValueError(f"a chunk of {layout.bytes} bytes is stored in {info.size}")
    skipped, body = dataset.read_direct_chunk(place)
    for position, code in reversed([*enumerate(layout.filters)]):
        if not skipped >> position & 1:
            inflate = code == h5py.h5z.FILTER_DEFLATE
            body = _inflated(body, layout.bytes) if inflate else _unshuffled(body, layout.dtype.itemsize)
    if len(body) != layout.bytes:
        raise ValueError(f"a chunk holds {len(body)} bytes, expected {layout.bytes}")
    return np.frombuffer(body, layout.dtype).reshape(layout.chunk)


def _inflated(body: bytes, size: int) -> bytes:
    """What a chunk holds, and one byte more at the most."""
    try:
        return zlib.decompressobj().decompress(body, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error


def _unshuffled(body: bytes, itemsize: int) -> bytes:
    """Bytes of each number together again; the filter had put all first bytes first, then all second ones."""
    whole = len(body) - len(body) % itemsize
    return np.frombuffer(body[:whole], np.uint8).reshape(itemsize, -1).T.tobytes() + body[whole:]


def filters_of(dataset: h5py.Dataset) -> list[int]:
    """Codes of the filters that its chunks passed through, in their order."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(position)[0] for position in range(properties.get_nfilters())]
