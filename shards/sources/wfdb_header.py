"""Headers of WFDB records: parsed by `wfdb`, after what it would hang on, guess or pass over has been refused.

`wfdb` drops bytes that are not ASCII (so that a unit of µV would become V), takes every further line for a signal, and
matches a line that is no signal in a time that grows with the square of its length.
Format: https://physionet.org/physiotools/wag/header-5.htm
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import wfdb

from shards.record import RecordError

MOST_HEADER_BYTES = 4_000_000
LONGEST_LINE = 1000
"""The format itself allows 255 characters."""
MOST_SIGNALS = 512
MOST_PER_FRAME = 10_000
MOST_FRAMES = 10**12
"""A thousand samples a second for thirty years."""
SLOWEST_HZ, FASTEST_HZ = 1e-6, 1e6

PLAIN_NAME = re.compile(r"~|[\w-]+\.?\w*", re.ASCII)
"""Names of signal files and segments: beside the header, no folder, no address."""

SEVERAL_SEGMENTS = re.compile(r"[\w-]+/\d", re.ASCII)
LINE_END = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e]")
"""What ends a line of ASCII text in Python, and so in `wfdb`."""


@dataclass(frozen=True)
class Outline:
    """What a record is made of, as its header names it."""

    segments: tuple[str, ...]
    """Names of the headers that it is made of, the layout's among them; none where it is of one piece."""
    files: tuple[str, ...]
    """Names of its signal files; none where it is made of segments."""
    comments: tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """A header and its comments, which `wfdb` would cut to ASCII."""

    fields: wfdb.Record | wfdb.MultiRecord
    record_line: str
    comments: list[str]


def outline(path: Path) -> Outline:
    """Read the names in the header of the record `path` (without extension), and no more: quick, for a million of them.

    Raises:
        RecordError: the file is absent or is no WFDB header.
    """
    lines, comments = _lines(path)
    names = tuple(dict.fromkeys(name for line in lines[1:] if (name := line.split()[0]) != "~"))
    several = SEVERAL_SEGMENTS.match(lines[0])
    return Outline(names if several else (), () if several else names, tuple(comments))


def read_header(path: Path) -> Header:
    """Read the header of the record `path` (without extension).

    Raises:
        RecordError: the file is absent or is no WFDB header that `wfdb` reads as it stands.
    """
    if "::" in str(path.absolute()):
        raise RecordError(f"{path.name}: '::' in a path stands for a chain of file systems in wfdb; rename the folder")
    lines, comments = _lines(path)
    try:
        fields = wfdb.rdheader(str(path.absolute()))
    except Exception as error:  # wfdb raises whatever its parsers meet in a damaged file
        raise _no_header(path, type(error).__name__) from error
    if not fields.n_sig or not SLOWEST_HZ <= (fields.fs or 0) <= FASTEST_HZ:
        raise RecordError(f"{path.name}.hea: expected signals and a sampling rate, found none; fetch it again")
    if max(fields.sig_len or 0, *(getattr(fields, "seg_len", None) or [0])) > MOST_FRAMES:
        raise _no_header(path, f"more than {MOST_FRAMES} samples")
    if isinstance(fields, wfdb.Record):
        _check_signals(path, fields, len(lines) - 1)
    elif fields.n_seg != len(lines) - 1:
        raise _no_header(path, f"{fields.n_seg} segments by its first line, {len(lines) - 1} listed")
    return Header(fields, lines[0], comments)


def _lines(path: Path) -> tuple[list[str], list[str]]:
    """Lines of a header that say something, and its comments, as `wfdb` tells them apart."""
    file = path.with_name(path.name + ".hea")
    try:
        if not file.is_file():
            raise RecordError(f"{file.name}: no such file; fetch the record or remove its row")
        with file.open("rb") as stream:
            body = stream.read(MOST_HEADER_BYTES + 1)
    except OSError as error:
        raise RecordError(f"{file.name}: cannot be read ({type(error).__name__}); check its name and permissions") from error
    if len(body) > MOST_HEADER_BYTES:
        raise _no_header(path, f"longer than {MOST_HEADER_BYTES} bytes")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    stripped = [line.strip() for line in LINE_END.split(text)]
    lines = [line for line in stripped if line and not line.startswith("#")]
    _check_lines(path, lines)
    return lines, [line.strip(" \t#") for line in stripped if line.startswith("#")]


def _check_lines(path: Path, lines: list[str]) -> None:
    if not lines:
        raise _no_header(path, "empty")
    if len(lines) - 1 > MOST_SIGNALS and not SEVERAL_SEGMENTS.match(lines[0]):  # wfdb takes 0.25 ms for each
        raise _no_header(path, f"{len(lines) - 1} signals listed, at most {MOST_SIGNALS} expected")
    for line in lines:
        if len(line) > LONGEST_LINE:
            raise _no_header(path, f"a line of {len(line)} characters")
        if not line.isascii():
            raise _no_header(path, "a line that is not ASCII; a unit in µV is written uV")
    for line in lines[1:]:
        name = line.split()[0]
        if not PLAIN_NAME.fullmatch(name):
            raise _no_header(path, f"it names {name[:120]!r}, expected a file beside the header")


def _check_signals(path: Path, fields: wfdb.Record, listed: int) -> None:
    if fields.n_sig != listed or listed > MOST_SIGNALS:
        raise _no_header(path, f"{fields.n_sig} signals by its first line, {listed} listed, at most {MOST_SIGNALS} expected")
    if not all(1 <= samples <= MOST_PER_FRAME for samples in fields.samps_per_frame):
        raise _no_header(path, f"expected 1 to {MOST_PER_FRAME} samples in a frame")
    groups = [name for place, name in enumerate(fields.file_name) if place == 0 or name != fields.file_name[place - 1]]
    if len(set(groups)) < len(groups):
        raise _no_header(path, "signals of one file do not stand together")
    if len(set(zip(fields.file_name, fields.fmt, strict=True))) > len(set(groups)):
        raise _no_header(path, "signals of one file have different formats")


def _no_header(path: Path, why: str) -> RecordError:
    return RecordError(f"{path.name}.hea: not a WFDB header ({why}); fetch it again")
