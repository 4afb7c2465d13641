"""Damage of tar archives: names that lead out, links, sizes, types and forms of entries."""

from __future__ import annotations

import io
import tarfile
from random import Random

from tests.shards.fuzz.damage_bytes import Damage
from tests.shards.fuzz.lures import Lures

BLOCK = tarfile.BLOCKSIZE
TYPES = b"01234567xgLKSVDNA\0 \xff"
SIZES = (b"00000000000", b"77777777777", b"00000000001", b"-0000000001", b"           ", b"99999999999", b"\x80" + b"\xff" * 10)
SIZES_BASE_256 = (b"\x80" + bytes(10) + b"\x05", b"\x80" + b"\x7f" * 11, b"\xff" * 12, b"\xff" + b"\x80" + bytes(10))


def _headers(body: bytes) -> list[int]:
    """Where entries begin."""
    places, place = [], 0
    while place + BLOCK <= len(body) and any(body[place : place + BLOCK]):
        places.append(place)
        size = int(body[place + 124 : place + 135] or b"0", 8)
        place += BLOCK + size + -size % BLOCK
    return places


def _with_checksum(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def _put(body: bytes, draw: Random, start: int, value: bytes) -> bytes:
    """A field of one entry replaced, its checksum made to fit."""
    place = draw.choice(_headers(body) or [0])
    header = body[place : place + BLOCK].ljust(BLOCK, b"\0")
    return body[:place] + _with_checksum(header[:start] + value + header[start + len(value) :]) + body[place + BLOCK :]


def entry_size(body: bytes, draw: Random, lures: Lures) -> bytes:
    size = draw.choice((*SIZES, *SIZES_BASE_256, b"%011o" % draw.choice((1, 511, 512, 2**26, 2**26 + 1, 2**32))))
    return _put(body, draw, 124, size.ljust(12, b"\0")[:12])


def entry_type(body: bytes, draw: Random, lures: Lures) -> bytes:
    return _put(body, draw, 156, bytes([draw.choice(TYPES)]))


def entry_name(body: bytes, draw: Random, lures: Lures) -> bytes:
    name = draw.choice(
        (*lures.names(0, ".h5"), "records/../elsewhere.h5", "records/A\n1.h5", "records/.h5", "records/é.h5", "a" * 100)
    )
    return _put(body, draw, 0, name.encode()[:100].ljust(100, b"\0"))


def link_entry(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A regular file of the archive becomes a link to what lies outside."""
    kind = draw.choice((tarfile.SYMTYPE, tarfile.LNKTYPE))
    target = draw.choice(lures.names(0, ".h5")).encode()[:100].ljust(100, b"\0")
    return _put(body, draw, 156, kind + target)


def odd_entries(body: bytes, draw: Random, lures: Lures) -> bytes:
    """Entries before the others: twice the same, far too many, with long names, with pax headers that claim another size."""
    stream = io.BytesIO()
    form = draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for number in range(draw.choice((1, 3, 3000))):
            entry = tarfile.TarInfo(
                draw.choice(("records/A00001.h5", "records/" + "n" * 300, "../elsewhere.h5", f"records/B{number}.h5"))
            )
            entry.type = draw.choice((tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE))
            entry.linkname = draw.choice(lures.names(0, ".h5")) if entry.type == tarfile.SYMTYPE else ""
            if form == tarfile.PAX_FORMAT:
                entry.pax_headers = {
                    draw.choice(("size", "path", "linkpath", "GNU.sparse.realsize")): draw.choice(
                        ("99999999999", "-1", "../elsewhere.h5", "x" * 5000)
                    )
                }
            archive.addfile(entry)
        end = archive.offset
    return stream.getvalue()[:end] + body


def compressed(body: bytes, draw: Random, lures: Lures) -> bytes:
    import bz2
    import gzip
    import lzma

    return draw.choice(
        (
            gzip.compress(body, 1, mtime=0),
            b"\x1f\x8b" + body,
            bz2.compress(body, 1),
            lzma.compress(body, preset=0),
            b"PK\3\4" + body,
        )
    )


TAR: tuple[Damage, ...] = (
    entry_size,
    entry_size,
    entry_size,
    entry_type,
    entry_type,
    entry_name,
    link_entry,
    link_entry,
    odd_entries,
    compressed,
)
