"""Damage that any file can take: what failing disks, broken transfers and careless tools do to bytes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.shards.fuzz.lures import Lures

Damage = Callable[[bytes, Random, Lures], bytes]
"""The bytes of a file, a seeded source of chance, and names of what lies outside → the bytes of the damaged file."""

ODD_INTEGERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    -1,
    -2,
)
HEAD = 1024
"""Bytes at the beginning of a file that take half of the damage: there it says what it is."""


def place(body: bytes, draw: Random) -> int:
    """A position, in the first bytes as often as anywhere."""
    return draw.randrange(max(1, min(len(body), HEAD) if draw.random() < 0.5 else len(body)))


def block(body: bytes, draw: Random) -> tuple[int, int]:
    """Beginning and end of a part of the file, more often short than long."""
    start = place(body, draw)
    return start, min(len(body), start + draw.choice((1, 4, 8, 16, 64, 512, 4096, max(1, len(body) // 3))))


def flip_bits(body: bytes, draw: Random, lures: Lures) -> bytes:
    changed = bytearray(body)
    for _ in range(draw.choice((1, 1, 2, 8, 64)) if body else 0):
        changed[place(body, draw)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def overwrite(body: bytes, draw: Random, lures: Lures) -> bytes:
    start, end = block(body, draw)
    return body[:start] + draw.randbytes(end - start) + body[end:]


def put_integer(body: bytes, draw: Random, lures: Lures) -> bytes:
    width = draw.choice((1, 2, 4, 4, 8))
    start = place(body, draw) // width * width
    value = (draw.choice(ODD_INTEGERS) % 2 ** (8 * width)).to_bytes(width, draw.choice(("little", "big")))
    return body[:start] + value + body[start + width :]


def put_zeros(body: bytes, draw: Random, lures: Lures) -> bytes:
    start, end = block(body, draw)
    return body[:start] + draw.choice((b"\0", b"\xff", b"\x80")) * (end - start) + body[end:]


def cut(body: bytes, draw: Random, lures: Lures) -> bytes:
    return body[: draw.choice((place(body, draw), len(body) - draw.randrange(1, 64), len(body) // 2))]


def cut_the_beginning(body: bytes, draw: Random, lures: Lures) -> bytes:
    return body[draw.choice((1, 2, 4, 24, 512, place(body, draw))) :]


def extend(body: bytes, draw: Random, lures: Lures) -> bytes:
    size = draw.choice((1, 2, 24, 512, 100_000))
    return body + draw.choice((bytes(size), draw.randbytes(size), body[:size], b"\n" * size, b" " * size))


def insert(body: bytes, draw: Random, lures: Lures) -> bytes:
    start = place(body, draw)
    return body[:start] + draw.randbytes(draw.choice((1, 2, 3, 8, 64, 5000))) + body[start:]


def remove_block(body: bytes, draw: Random, lures: Lures) -> bytes:
    start, end = block(body, draw)
    return body[:start] + body[end:]


def repeat_block(body: bytes, draw: Random, lures: Lures) -> bytes:
    start, end = block(body, draw)
    times = min(draw.choice((1, 2, 50, 5000)), 1 + 2_000_000 // max(1, end - start))
    return body[:end] + body[start:end] * times + body[end:]


def swap_blocks(body: bytes, draw: Random, lures: Lures) -> bytes:
    size = draw.choice((1, 2, 8, 64, 512))
    first, second = sorted((place(body, draw), place(body, draw)))
    first, second = min(first, second - size), second
    if first < 0:
        return body[::-1]
    return (
        body[:first]
        + body[second : second + size]
        + body[first + size : second]
        + body[first : first + size]
        + body[second + size :]
    )


def empty(body: bytes, draw: Random, lures: Lures) -> bytes:
    return draw.choice((b"", b"\0", b"\n", bytes(4096), b"\xef\xbb\xbf"))


BEGINNINGS = (
    *(
        b"\x89HDF\r\n\x1a\n",
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM",
        b"\x1f\x8b\x08",
        b"PK\3\4",
        b"fLaC",
        b"RIFF",
        b"{}",
        b"<a>",
    ),
    *(
        b"SIMPLE  =",
        b"\x93NUMPY\1\0v\0",
        b"\x80\4\x95",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"version https://git-lfs.github.com/spec/v1\n",
    ),
)
"""How files of other formats begin."""


def another_kind(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A file of another kind under this one's name, or what a server says instead of a file."""
    page = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>no</body></html>"
    return draw.choice((page, *(beginning + draw.choice((b"", body, draw.randbytes(3000))) for beginning in BEGINNINGS)))


BYTES: tuple[Damage, ...] = (
    *(flip_bits, overwrite, put_integer, put_zeros, cut, cut_the_beginning, extend, insert, remove_block, repeat_block),
    *(swap_blocks, empty, another_kind),
)
