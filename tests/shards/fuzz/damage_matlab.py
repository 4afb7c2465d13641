"""Damage of MATLAB 5 files: the types, sizes and shapes of their elements, also of those that are compressed."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from random import Random

import h5py
import numpy as np
import scipy.io
import scipy.sparse

from tests.shards.fuzz.damage_bytes import ODD_INTEGERS, Damage
from tests.shards.fuzz.lures import Lures

HEADER = 128
MATRIX, COMPRESSED = 14, 15
STRUCTURE = 480
"""Bytes of a struct's element in which its sizes and names stand."""


def _element(body: bytes) -> tuple[int, bytes]:
    """Type and bytes of the first element, decompressed where it was compressed."""
    if len(body) < HEADER + 8:
        return MATRIX, b""
    kind, size = struct.unpack_from("<II", body, HEADER)
    content = body[HEADER + 8 : HEADER + 8 + size]
    return (kind, zlib.decompress(content)) if kind == COMPRESSED else (kind, body[HEADER : HEADER + 8] + content)


def _file(body: bytes, kind: int, element: bytes) -> bytes:
    if kind == COMPRESSED:
        packed = zlib.compress(element, 1)
        element = struct.pack("<II", COMPRESSED, len(packed)) + packed
    return body[:HEADER].ljust(HEADER, b"\0") + element


def put_word(body: bytes, draw: Random, lures: Lures) -> bytes:
    """One of the four-byte words that say what follows and how much of it, within what is compressed too."""
    kind, element = _element(body)
    start = 4 * draw.randrange(max(1, min(len(element), STRUCTURE) // 4))
    value = draw.choice(
        (*ODD_INTEGERS, *range(20), len(element), len(element) * 2, 0x00040005, 0x00050001, draw.randrange(2**32))
    )
    return _file(body, kind, element[:start] + struct.pack("<I", value % 2**32) + element[start + 4 :])


def cut_within(body: bytes, draw: Random, lures: Lures) -> bytes:
    kind, element = _element(body)
    return _file(body, kind, element[: draw.randrange(len(element) + 1)])


def compress_or_not(body: bytes, draw: Random, lures: Lures) -> bytes:
    """The same struct in the other form, within another compressed element, or twice."""
    element = _element(body)[1]
    once = _file(body, COMPRESSED, element)[HEADER:]
    forms = (
        element,
        once,
        _file(body, COMPRESSED, once)[HEADER:],
        once * 20,
        once[: len(once) // 2],
        struct.pack("<II", 15, 0),
    )
    return body[:HEADER] + draw.choice(forms)


@cache
def _zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def bomb(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A compressed element that holds far more than a recording, in one layer or two."""
    packed = _zeros(draw.choice((2**24, 2**27, 2**29)))
    if draw.random() < 0.3:
        packed = zlib.compress(packed, 9)
    count = draw.choice((1, 1, 16, 300))
    return body[:HEADER] + (struct.pack("<II", COMPRESSED, len(packed)) + packed) * (count if len(packed) < 100_000 else 1)


def nested(body: bytes, draw: Random, lures: Lures) -> bytes:
    """Cells in cells, as deep as the file is long, or compressed elements in compressed elements."""
    inner = _element(body)[1] if draw.random() < 0.5 else b""
    for _ in range(draw.choice((3, 100, 2000))):
        if draw.random() < 0.02:
            inner = struct.pack("<II", COMPRESSED, len(packed := zlib.compress(inner, 1))) + packed
        head = struct.pack("<IIIIIIII", 6, 8, draw.choice((1, 2)), 0, 5, 8, 1, 1) + struct.pack("<II", 0x00030001, 0x00474345)
        inner = struct.pack("<II", MATRIX, len(head) + len(inner)) + head + inner
    return body[:HEADER] + inner


def another_value(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A field of another class, shape or type, as MATLAB itself would write it."""
    data = np.random.default_rng(1).normal(0, 0.5, (12, 300))
    odd = (
        *(np.float64(1), np.zeros((12, 0)), np.zeros((0, 12)), data[:11], data.T, data[None], data.astype("f4"), data + 1j),
        *((data * 1000).astype("i2"), data > 0, "text" * 100, scipy.sparse.csc_matrix(data), {"data": data}, [], None),
        *(
            np.array([data, "a"], dtype=object),
            data * np.nan,
            data * 1e300,
            data * 1e-320,
            np.full((12, 9), np.inf),
            np.zeros((12, 300)),
        ),
        *(np.arange(3600, dtype="u8").reshape(12, 300) * 2**50, np.int8([[1]] * 12), "é𝄞" * 5, np.array([["ab"], ["cd"]])),
    )
    fields = {"sex": "Male", "age": 52.0, "data": data}
    fields[draw.choice(("sex", "age", "data", "data", "data"))] = draw.choice([value for value in odd if value is not None])
    if draw.random() < 0.2:
        del fields[draw.choice(list(fields))]
    fields.update({f"field{number}": number for number in range(draw.choice((0, 0, 0, 3, 70)))})
    stream = io.BytesIO()
    content = draw.choice((fields, fields, fields, fields, data, np.array([fields, fields], dtype=object), "text"))
    variables = {draw.choice(("ECG", "ECG", "ECG", "ecg", "a" * 31)): content}
    scipy.io.savemat(stream, variables, do_compression=draw.random() < 0.5)
    return body[:HEADER] + stream.getvalue()[HEADER:]


def another_version(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A file of MATLAB 4, of 7.3, or a header that says something else."""
    change = draw.randrange(6)
    stream = io.BytesIO()
    if change == 0:
        scipy.io.savemat(stream, {"ECG": np.zeros((12, 100))}, format="4")
        return stream.getvalue()
    if change == 1:
        with h5py.File(stream, "w", userblock_size=512) as file:
            file["ECG/data"] = np.zeros((12, 100))
        return b"MATLAB 7.3 MAT-file".ljust(512, b" ") + stream.getvalue()[512:]
    if change == 2:
        return struct.pack("<5i4s", 30, 12, draw.choice((300, -1, 2**31 - 1)), 0, 4, b"val\0") + body[24:]
    if change == 3:
        return body[:124] + draw.choice((b"\0\1MI", b"\1\0MI", b"\0\2IM", b"\0\1XX", b"\0\0\0\0")) + body[HEADER:]
    if change == 4:
        return body[:HEADER]
    return draw.randbytes(HEADER) + body[HEADER:]


MATLAB: tuple[Damage, ...] = (
    *(
        put_word,
        put_word,
        put_word,
        put_word,
        cut_within,
        compress_or_not,
        bomb,
        nested,
        another_value,
        another_value,
        another_version,
    ),
)
