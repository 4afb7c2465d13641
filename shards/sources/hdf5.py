"""HDF5 files as corpora ship them: plain numeric datasets, checked before a byte of them is decoded."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from shards.record import RecordError, shown
from shards.sources.hdf5_chunks import FILTERS, filters_of, read_chunks

LARGEST_READ = 256 * 2**20
"""Bytes that one read may decode to: a record of 12 leads takes less than 1 % of it; a damaged header may claim any number."""


MOST_CHUNKS = 65_536
"""Chunks that one read may touch; a tracing of the TNMG family has 16 to 32."""

DAMAGE = (OSError, RuntimeError, ValueError, IndexError, KeyError, TypeError, OverflowError)
"""What h5py raises over a damaged file."""


@lru_cache(maxsize=64)
def _open(path: Path, changed_ns: int) -> h5py.File:
    del changed_ns  # a file that was replaced is opened anew
    return h5py.File(path, "r")


def open_dataset(path: Path, name: str) -> h5py.Dataset:
    """A numeric dataset of a file, opened once for each process.

    Raises:
        RecordError: the file is absent or damaged, or the dataset is not as `dataset_in` wants it.
    """
    if not path.is_file():
        raise RecordError(f"{path.name}: no such file; fetch it or remove its rows")
    try:
        return dataset_in(_open(path, path.stat().st_mtime_ns), name, path.name)
    except RecordError:
        raise
    except DAMAGE as error:
        raise RecordError(f"{path.name}: not a readable HDF5 file ({_cause(error)}); fetch it again") from error


def dataset_in(file: h5py.File, name: str, where: str) -> h5py.Dataset:
    """A numeric dataset that lies in the file itself.

    Raises:
        RecordError: it is not there, holds no numbers, or takes them from elsewhere: through a link, a virtual dataset or
            external storage. The sentence begins with `where`.
    """
    link = file.get(name, getlink=True)
    dataset = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        found = shown(islice(map(str, file), 8)) or "nothing"
        raise RecordError(f"{where}: expected the dataset {name!r} in the file itself, found {found}; fetch it again")
    _check_filters(dataset, where)
    if dataset.dtype.kind not in "iuf":
        raise RecordError(f"{where}: {name} has type {dataset.dtype}, expected numbers; fetch it again")
    return dataset


def read_rows(dataset: h5py.Dataset, rows: int | slice, where: str) -> NDArray[Any]:
    """A part of a dataset along its first axis.

    Raises:
        RecordError: it cannot be decoded, or would take more than `LARGEST_READ` bytes; the sentence begins with `where`.
    """
    try:
        start, stop, _ = (rows if isinstance(rows, slice) else slice(rows, rows + 1)).indices(dataset.shape[0])
        part = (max(0, stop - start), *dataset.shape[1:])
        _check_size(dataset, part, where)
        found = dataset[start:stop] if dataset.chunks is None else read_chunks(dataset, start, part)
    except RecordError:
        raise
    except DAMAGE as error:
        raise RecordError(f"{where}: {dataset.name} cannot be decoded ({_cause(error)}); fetch the file again") from error
    array: NDArray[Any] = found if isinstance(rows, slice) else found[0]
    return array


def _check_size(dataset: h5py.Dataset, part: tuple[int, ...], where: str) -> None:
    """Refuse what takes far more memory than an ECG, by its shape or by the chunks that it touches."""
    chunk = dataset.chunks or tuple(max(1, size) for size in part)
    touched = [math.ceil(size / step) + (axis == 0) for axis, (size, step) in enumerate(zip(part, chunk, strict=True))]
    size = math.prod(map(float, touched)) * math.prod(map(float, chunk)) * dataset.dtype.itemsize
    if size > LARGEST_READ or math.prod(map(float, touched)) > MOST_CHUNKS:
        raise RecordError(f"{where}: {dataset.name} claims {size:.3g} bytes, expected an ECG; fetch the file again")


def _check_filters(dataset: h5py.Dataset, where: str) -> None:
    """Refuse filters that no corpus uses."""
    found = filters_of(dataset)
    if not FILTERS.issuperset(found):
        raise RecordError(
            f"{where}: {dataset.name} has the filters {', '.join(map(str, found))}, expected gzip, with shuffle, or none; "
            "write it again with h5repack"
        )


def _cause(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
