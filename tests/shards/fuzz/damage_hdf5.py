"""Damage of HDF5 files by what the format allows: other shapes, types and filters, and data that lies elsewhere."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from functools import cache
from random import Random

import h5py
import numpy as np

from tests.shards.fuzz.damage_bytes import Damage
from tests.shards.fuzz.lures import Lures

Change = Callable[[h5py.File, str, Random, Lures], None]


def _changing(change: Change) -> Damage:
    """Damage that rewrites one dataset of a file."""

    def damage(body: bytes, draw: Random, lures: Lures) -> bytes:
        stream = io.BytesIO(body)
        with h5py.File(stream, "r+") as file:
            names = [name for name in file if isinstance(file.get(name), h5py.Dataset)]
            change(file, draw.choice(names), draw, lures)
        return stream.getvalue()

    damage.__name__ = change.__name__
    return damage


def another_shape(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    """Claims that cost nothing in the file: chunks that are not there are not stored."""
    old, dtype = file[name].shape, file[name].dtype
    del file[name]
    first = draw.choice((0, 1, 3, 1000, 10**9, 2**40, 2**62))
    shape = draw.choice(
        (
            *((first, *old[1:]), (*old[:-1], first), old[::-1], (*old, first), (first,), (first,) * 3, (*old, 1), (1,) * 32),
            *((12, first), (first, 12), (first, 4096, 12), (2, 4096, 12, 1)),
        )
    )
    chunks = tuple(min(size, 8) or 1 for size in shape)
    file.create_dataset(
        name, shape, dtype, chunks=chunks, maxshape=(None,) * len(shape), compression=draw.choice((None, "gzip"))
    )


def another_chunk(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    """A chunk that is far larger than the dataset, or of which there are very many."""
    old, dtype = file[name].shape, file[name].dtype
    del file[name]
    large = draw.choice((1000, 10**5, 10**7, 10**8))
    chunks = draw.choice(((large,) + (1,) * (len(old) - 1), (1,) * (len(old) - 1) + (large,), (1,) * len(old)))
    if np.prod(chunks, dtype=float) * dtype.itemsize >= 2**32:
        chunks = (1,) * len(old)
    dataset = file.create_dataset(name, old, dtype, chunks=chunks, maxshape=(None,) * len(old), compression="gzip")
    if draw.random() < 0.7:
        dataset.id.write_direct_chunk((0,) * len(old), zlib.compress(bytes(draw.choice((0, 10, 100_000)))))


def another_type(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    old = file[name][()]
    del file[name]
    change = draw.randrange(14)
    if change < 8:
        kinds = ("i1", ">i4", "u8", ">f8", "f2", "c8", "c16", "?")
        with np.errstate(all="ignore"):
            file[name] = old.astype(kinds[change])
    elif change == 8:
        file.create_dataset(name, data=old.astype("S8"))
    elif change == 9:
        file.create_dataset(name, old.shape[:1], h5py.vlen_dtype(np.float32))[0] = np.zeros(3, "f4")
    elif change == 10:
        file.create_dataset(name, old.shape[:1], h5py.string_dtype())[0] = "text"
    elif change == 11:
        file.create_dataset(name, old.shape[:1], np.dtype([("a", "f4"), ("b", "i4", (3,))]))
    elif change == 12:
        file.create_dataset(name, old.shape[:1], np.dtype(("f4", old.shape[1:] or (2,))))
    else:
        file.create_dataset(name, old.shape, h5py.enum_dtype({"a": 0, "b": 1}))


def another_object(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    """A group, a link to nothing, to itself or to its neighbour, an empty or a scalar dataset in its place."""
    values = file[name][()]
    del file[name]
    change = draw.randrange(9)
    if change == 0:
        file.create_group(name)
    elif change == 1:
        file[name] = h5py.SoftLink(f"/{name}")
    elif change == 2:
        file["moved"] = values
        file[name] = h5py.SoftLink("/moved")
    elif change == 3:
        file[name] = h5py.Empty("f4")
    elif change == 4:
        file[name] = values.flat[0]
    elif change == 5:
        file[name] = np.dtype("f4")
    elif change == 6:
        file[name] = file["/"]
    elif change == 7:
        file["moved"] = values
        file.create_dataset(name, values.shape[:1], h5py.ref_dtype)[0] = file["moved"].ref
    # else: it is not there at all


def external_link(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    del file[name]
    target = draw.choice(("ecg", "tracings", "signal", "exam_id", "id_exam", name, name, name))
    file[name] = h5py.ExternalLink(draw.choice((*lures.within_reach(".h5"), *lures.names(end=".h5"))), f"/{target}")


def external_storage(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    shape = file[name].shape
    del file[name]
    where = draw.choice((*lures.within_reach(".raw"), "/etc/passwd"))
    file.create_dataset(name, shape, "f4", external=[(where, 0, h5py.h5f.UNLIMITED)])


def virtual_dataset(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource(draw.choice((*lures.within_reach(".h5"), ".")), name, shape)
    file.create_virtual_dataset(name, layout)


@cache
def _bomb(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def bomb(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    """A chunk that inflates to far more than the dataset holds."""
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    dataset = file.create_dataset(name, shape, dtype, chunks=shape, compression="gzip")
    stored = _bomb(draw.choice((2**20, 2**25, 2**28)))
    if draw.random() < 0.4:
        stored = zlib.compress(stored, 9)
    dataset.id.write_direct_chunk((0,) * len(shape), stored)


def another_filter(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    """Chunks whose bytes are not what their filters make, or filters that nobody has."""
    values = file[name][()]
    del file[name]
    change = draw.randrange(7)
    if change == 0:
        file.create_dataset(name, data=values, chunks=True, compression="lzf", shuffle=True)
    elif change == 1:
        file.create_dataset(name, data=values, chunks=True, fletcher32=True)
    elif change == 2 and values.dtype.kind in "iu":
        file.create_dataset(name, data=values, chunks=True, scaleoffset=2)
    elif change == 3:
        create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        create.set_chunk(values.shape)
        create.set_filter(draw.choice((32000, 32001, 32008, 40000, 65535)), h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(values.dtype), space, create)
    else:
        kind = draw.choice(("gzip", "lzf"))
        dataset = file.create_dataset(
            name, values.shape, values.dtype, chunks=values.shape, compression=kind, fletcher32=change == 4
        )
        mask, size = draw.choice((0, 0, 1, 2, 2**31)), draw.choice((1, 2, 100, 100_000))
        dataset.id.write_direct_chunk((0,) * values.ndim, draw.randbytes(size), mask)


def other_values(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    """Numbers that no recording holds, in all, some or none of its places."""
    values = file[name][()]
    del file[name]
    odd = (np.nan, np.inf, -np.inf, 0.0, 1e-320, 1e30, 1e300, -1e308, 65504.0, 5e-324)
    if values.dtype.kind in "iu":
        values[...] = draw.choice((0, -1, 2**63 - 1, -(2**63), int(values.flat[0])))
    else:
        wide = values.astype("f8") if draw.random() < 0.6 else values
        with np.errstate(all="ignore"):
            mask = np.random.default_rng(draw.randrange(2**32)).random(values.shape) < draw.choice((1.0, 1.0, 0.5, 0.001))
            wide[mask] = draw.choice(odd)
            if draw.random() < 0.2:
                wide[..., draw.randrange(values.shape[-1])] = draw.choice(odd)
        values = wide
    file.create_dataset(name, data=values, compression="gzip")


def attributes(file: h5py.File, name: str, draw: Random, lures: Lures) -> None:
    """Attributes, names and dimension scales that a reader may stumble over."""
    change = draw.randrange(5)
    if change == 0:
        file[name].attrs["a" * 1000] = np.zeros(1000)
    elif change == 1:
        file["\u202e" + "n" * 500] = np.zeros(3)
    elif change == 2:
        file[b"\xff\xfe\n\r"] = np.zeros(3)
    elif change == 3:
        for number in range(300):
            file[f"{number}\n{'x' * 100}"] = number
    else:
        file[name].make_scale("a\nb")
    if draw.random() < 0.6:
        del file[name]


def fixed_header_fields(body: bytes, draw: Random, lures: Lures) -> bytes:
    """Bytes that are sizes, counts or addresses, near one of the format's own signatures."""
    marks = [
        place
        for mark in (b"TREE", b"HEAP", b"SNOD", b"OHDR", b"GCOL", b"\x89HDF", b"FRHP", b"FADB")
        for place in _places(body, mark)
    ]
    start = (draw.choice(marks) if marks else 0) + draw.randrange(0, 96)
    width = draw.choice((1, 2, 4, 8))
    value = draw.choice(
        (
            b"\xff" * width,
            bytes(width),
            b"\x7f" * width,
            draw.randbytes(width),
            (2 ** (8 * width - 1)).to_bytes(width, "little"),
        )
    )
    return body[:start] + value + body[start + width :]


def _places(body: bytes, mark: bytes) -> list[int]:
    places, place = [], body.find(mark)
    while place >= 0:
        places.append(place)
        place = body.find(mark, place + 1)
    return places


HDF5: tuple[Damage, ...] = (
    *(fixed_header_fields, fixed_header_fields, fixed_header_fields),
    *map(
        _changing, (another_shape, another_shape, another_chunk, another_type, another_object, external_link, external_storage)
    ),
    *map(_changing, (virtual_dataset, bomb, another_filter, other_values, other_values, attributes)),
)
