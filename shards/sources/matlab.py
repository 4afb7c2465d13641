"""MATLAB files that hold one struct of numbers and text, read without trusting a byte of them.

Format: MAT-File Format, level 5 (The MathWorks), which MATLAB 5 to 7 write. `scipy.io.loadmat` reads far more, and believes
what it reads: a struct of 216 bytes that claims 20000 x 20000 elements takes it 3 GB, nested cells end the process. Here
each length is held against the bytes that are there, the wanted fields alone are decoded, and nothing is followed deeper.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.record import RecordError

LARGEST = 64 * 2**20
"""Bytes of a file, as stored and as decompressed; a record of 144 s takes 7 MB."""

MOST_VARIABLES = 16
MOST_FIELDS = 64
HEADER = 128
HDF5_SIGNATURE = b"\x89HDF"

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
"""Types of elements that have a meaning of their own."""

NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
"""Types of elements that hold numbers, and characters."""

STRUCT_CLASS, CHAR_CLASS = 2, 4
NUMERIC_CLASSES = range(6, 16)
COMPLEX = 0x0800


class _MalformedError(Exception):
    """What is wrong with the bytes, in a few words."""


@dataclass(frozen=True)
class _Element:
    kind: int
    body: memoryview


@dataclass(frozen=True)
class _Array:
    """A MATLAB array: its head, and the elements that hold its content."""

    of_class: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    content: Iterator[_Element]


def read_struct(path: Path, name: str, wanted: Sequence[str], where: str) -> dict[str, NDArray[Any] | str]:
    """Fields of the 1x1 struct `name` of a MATLAB 5 to 7 file.

    Args:
        path: the file.
        name: the variable.
        wanted: the fields, found by their names; others are passed over.
        where: the file, for the sentence of an error.

    Returns:
        field → numbers in the shape and type in which they are stored, or text.

    Raises:
        RecordError: the file is absent, of another format, damaged or too large, or lacks the struct or a field.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise _MalformedError(f"has more than {LARGEST} bytes")
        data = path.read_bytes()
        order = _byte_order(data)
        return _wanted_fields(_find(data, order, name), order, wanted)
    except FileNotFoundError as error:
        raise RecordError(f"{where}: no such file; fetch it or remove its row") from error
    except OSError as error:
        raise RecordError(f"{where}: cannot be read ({error.strerror}); fetch it again") from error
    except _MalformedError as error:
        raise RecordError(
            f"{where}: {error}; expected a MATLAB 5 file with a struct {name} of {', '.join(wanted)}; fetch it again"
        ) from error


def _byte_order(data: bytes) -> str:
    if HDF5_SIGNATURE in (data[:4], data[512:516]) or data.startswith(b"MATLAB 7.3"):
        raise _MalformedError("is a MATLAB 7.3 file")
    if len(data) > HEADER and 0 in data[:4]:
        raise _MalformedError("is a MATLAB 4 file, as WFDB records have, or none")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER])
    if order is None:
        raise _MalformedError("is no MATLAB file")
    return order


def _find(data: bytes, order: str, name: str) -> _Array:
    """The variable `name`; what was compressed may hold `LARGEST` bytes in all."""
    left = LARGEST
    for element in islice(_elements(memoryview(data)[HEADER:], order), MOST_VARIABLES):
        if element.kind == COMPRESSED:
            body = _decompress(element.body, left)
            left -= len(body)
            element = next(_elements(memoryview(body), order), element)
        array = _array(element, order)
        if array.name == name:
            return array
    raise _MalformedError(f"holds no {name}")


def _decompress(body: memoryview, most: int) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        plain = decompressor.decompress(body, most + 1)
    except zlib.error:
        raise _MalformedError("is damaged where it is compressed") from None
    if len(plain) > most:
        raise _MalformedError(f"decompresses to more than {LARGEST} bytes")
    return plain


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """The data elements of a body: each a type, a length and its bytes, padded to 8 unless compressed."""
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise _MalformedError("was cut")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start, following = position + 8, position + 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if kind >> 16:  # up to four bytes stand in the tag itself
            kind, size, start, following = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        if start + size > min(len(data), following):
            raise _MalformedError("was cut, or a length in it is damaged")
        yield _Element(kind, data[start : start + size])
        position = following


def _array(element: _Element, order: str) -> _Array:
    if element.kind != MATRIX:
        raise _MalformedError(f"holds an element of type {element.kind} where an array belongs")
    content = _elements(element.body, order)
    flags, shape, name = (next(content, None) for _ in range(3))
    if flags is None or shape is None or name is None or (flags.kind, shape.kind, name.kind) != (UINT32, INT32, INT8):
        raise _MalformedError("holds an array without flags, dimensions and name")
    if len(flags.body) != 8 or len(shape.body) != 8:
        raise _MalformedError("holds an array that is not of two dimensions")
    word = struct.unpack_from(f"{order}I", flags.body)[0]
    rows, columns = struct.unpack(f"{order}ii", shape.body)
    return _Array(word & 0xFF, bool(word & COMPLEX), (rows, columns), bytes(name.body).decode("latin-1"), content)


def _wanted_fields(array: _Array, order: str, wanted: Sequence[str]) -> dict[str, NDArray[Any] | str]:
    if array.of_class != STRUCT_CLASS or array.shape != (1, 1):
        raise _MalformedError(f"holds {array.name} as an array of class {array.of_class} and shape {array.shape}")
    names = _field_names(array, order)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise _MalformedError(f"lacks the field {', '.join(missing)}")
    fields = dict(zip(names, array.content, strict=False))
    if len(fields) < len(names):
        raise _MalformedError("holds fewer fields than names")
    return {name: _value(_array(fields[name], order), name, order) for name in wanted}


def _field_names(array: _Array, order: str) -> list[str]:
    width, names = next(array.content, None), next(array.content, None)
    if width is None or names is None or (width.kind, len(width.body), names.kind) != (INT32, 4, INT8):
        raise _MalformedError("holds a struct without names of fields")
    size = struct.unpack(f"{order}i", width.body)[0]
    if size < 1 or len(names.body) % size or not 0 < len(names.body) // size <= MOST_FIELDS:
        raise _MalformedError("holds a struct whose names of fields are damaged")
    text = bytes(names.body)
    found = [text[start : start + size].split(b"\0")[0].decode("latin-1") for start in range(0, len(text), size)]
    if len(set(found)) < len(found):
        raise _MalformedError("holds a struct with two fields of one name")
    return found


def _value(array: _Array, field: str, order: str) -> NDArray[Any] | str:
    values = next(array.content, None)
    if array.of_class == CHAR_CLASS:
        return "" if values is None else _text(values, field, order)
    if array.of_class not in NUMERIC_CLASSES or array.is_complex:
        raise _MalformedError(f"holds {field} as an array of class {array.of_class}, not as numbers or text")
    if values is None or values.kind not in NUMBERS:
        raise _MalformedError(f"holds {field} without its numbers")
    dtype = np.dtype(order + NUMBERS[values.kind])
    if min(array.shape) < 0 or math.prod(array.shape) * dtype.itemsize != len(values.body):
        raise _MalformedError(f"claims the shape {array.shape} for {field}, and holds {len(values.body)} bytes of {dtype}")
    return np.frombuffer(values.body, dtype).reshape(array.shape, order="F")


def _text(values: _Element, field: str, order: str) -> str:
    if values.kind not in TEXT:
        raise _MalformedError(f"holds {field} without its characters")
    codec = TEXT[values.kind]
    suffix = "" if values.kind in (1, 2, 16) else "-le" if order == "<" else "-be"
    return bytes(values.body).decode(codec + suffix, errors="replace")
