"""Signal files of a WFDB record of one piece: that they hold what the header says, and what `wfdb` decodes from them.

Formats: https://physionet.org/physiotools/wag/signal-5.htm
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import wfdb
from numpy.typing import NDArray

from shards.record import RecordError
from shards.sources.paths import within

MOST_VALUES = 64_000_000
"""Samples of all channels of a file that are decoded at once."""

BYTES_PER_SAMPLE = {
    **dict.fromkeys(("8", "80"), Fraction(1)),
    **dict.fromkeys(("16", "61", "160"), Fraction(2)),
    "24": Fraction(3),
    "32": Fraction(4),
    "212": Fraction(3, 2),
    **dict.fromkeys(("310", "311"), Fraction(4, 3)),
}
FLAC_FORMATS = ("508", "516", "524")
DIFFERENCES = "8"
"""A format that stores differences: it can be read from its beginning only."""

NOT_RECORDED = {
    **dict.fromkeys(("80", "508"), -(2**7)),
    **dict.fromkeys(("310", "311"), -(2**9)),
    "212": -(2**11),
    **dict.fromkeys(("16", "61", "160", "516"), -(2**15)),
    **dict.fromkeys(("24", "524"), -(2**23)),
    "32": -(2**31),
}
"""What a format stores for a sample that was not recorded; format 8 has no such value."""


def checked_length(path: Path, record: wfdb.Record, channels: Sequence[int]) -> int:
    """Frames of the record `path`, which every file of the channels holds; of its first file where the header does not say.

    Raises:
        RecordError: a file is absent, cut, or not of the format that the header says.
    """
    length = record.sig_len if record.sig_len is not None else _length_of_file(path, record)
    if length < 1:
        raise RecordError(f"{path.name}.hea: expected a number of samples, found none; fetch it again")
    for name in dict.fromkeys(record.file_name[channel] for channel in channels):
        if _format(path, record, name) in FLAC_FORMATS:
            _check_flac(path, record, name, length)
        else:
            _check_size(path, record, name, length)
    return int(length)


def read_channels(
    path: Path, record: wfdb.Record, channels: Sequence[int], length: int, first: int, stop: int
) -> list[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Frames `first` to `stop` of channels of the record `path`, each shifted by its skew.

    Args:
        path: the record, without extension.
        record: its header.
        channels: positions of the channels that are wanted.
        length: frames of the whole record, as `checked_length` gives them.
        first: first frame.
        stop: the frame after the last.

    Returns:
        For each channel the counts as stored, and which of them were not recorded; (samples,) each.

    Raises:
        RecordError: a file is damaged, or it is too much to decode at once.
    """
    skews = [record.skew[channel] or 0 for channel in channels]
    begin, end = first, min(length, stop + max(skews))
    if record.sig_len is None or any(record.fmt[channel] == DIFFERENCES for channel in channels):
        begin = 0
    if record.sig_len is None:  # wfdb takes no end where the header gives no length
        end = length
    _check_amount(path, record, channels, end - begin)
    signals = _decode(path, record, channels, begin, None if record.sig_len is None else end)
    found = []
    for channel, skew, signal in zip(channels, skews, signals, strict=True):
        per_frame = record.samps_per_frame[channel]
        if len(signal) != (end - begin) * per_frame:
            raise RecordError(
                f"{path.name}: {len(signal)} samples where {(end - begin) * per_frame} were expected; fetch it again"
            )
        if (begin, end) == (0, length):
            _check_sum(path, record, channel, signal)
        found.append(_shifted(signal, (first - begin + skew) * per_frame, (stop - first) * per_frame, record.fmt[channel]))
    return found


def _shifted(signal: NDArray[np.int32], start: int, samples: int, form: str) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """A part of a signal and which of it was not recorded: what its format marks so, and what lies beyond its end."""
    here = signal[start : start + samples]
    mark = NOT_RECORDED.get(form)
    invalid = np.zeros(len(here), dtype=np.bool_) if mark is None else here == mark
    beyond = (0, samples - len(here))
    return np.pad(here, beyond), np.pad(invalid, beyond, constant_values=True)


def _decode(path: Path, record: wfdb.Record, channels: Sequence[int], begin: int, end: int | None) -> list[NDArray[np.int32]]:
    """Counts as stored. Skew is left to the caller: wfdb takes no two different ones in a file.

    Channels with one sample a frame are read as frames, in which form wfdb knows big-endian counts (format 61) too.
    """
    as_frames = all(record.samps_per_frame[channel] == 1 for channel in channels)
    try:
        read = wfdb.rdrecord(
            str(path.absolute()),
            sampfrom=begin,
            sampto=end,
            channels=list(channels),
            physical=False,
            smooth_frames=as_frames,
            ignore_skew=True,
            return_res=32,
        )
    except Exception as error:  # wfdb raises whatever its parsers meet in a damaged file
        raise RecordError(
            f"{path.name}: the signal cannot be decoded ({type(error).__name__}: {str(error)[:200]}); fetch it again"
        ) from error
    signals: list[NDArray[np.int32]] = list(read.d_signal.T) if as_frames else read.e_d_signal
    return signals


def _group(record: wfdb.Record, name: str) -> list[int]:
    """The channels of one file."""
    return [channel for channel, file in enumerate(record.file_name) if file == name]


def _values_per_frame(record: wfdb.Record, name: str) -> int:
    return sum(record.samps_per_frame[channel] for channel in _group(record, name))


def _offset(record: wfdb.Record, name: str) -> int:
    """Bytes, or samples of a FLAC file, before the first frame."""
    return record.byte_offset[_group(record, name)[0]] or 0


def _format(path: Path, record: wfdb.Record, name: str) -> str:
    found: str = record.fmt[_group(record, name)[0]]
    if found not in BYTES_PER_SAMPLE and found not in FLAC_FORMATS:
        known = ", ".join([*BYTES_PER_SAMPLE, *FLAC_FORMATS])
        raise RecordError(f"{path.name}.hea: format {found[:20]} of {name}, expected one of {known}; mend the header")
    return found


def _existing(path: Path, name: str) -> tuple[Path, int]:
    """A signal file of the record, and its bytes."""
    file = within(path.parent, name, f"{path.name}.hea")
    try:
        if file.is_file():
            return file, file.stat().st_size
    except OSError as error:
        raise RecordError(f"{path.parent.name}/{name[:80]}: cannot be read ({error.strerror}); check it") from error
    raise RecordError(f"{path.parent.name}/{name}: no such file; fetch it or remove the record's row")


def _length_of_file(path: Path, record: wfdb.Record) -> int:
    """Frames of the first file by its size, as wfdb takes them."""
    name = record.file_name[0]
    if _format(path, record, name) in FLAC_FORMATS:
        raise RecordError(f"{path.name}.hea: expected a number of samples, since {name} is compressed; mend the header")
    size = _existing(path, name)[1] - _offset(record, name)
    return int(size // (BYTES_PER_SAMPLE[_format(path, record, name)] * _values_per_frame(record, name)))


def _check_size(path: Path, record: wfdb.Record, name: str, length: int) -> None:
    """Refuse a file that is shorter than its header says: wfdb would name a reshape, not a file."""
    form, per_frame = _format(path, record, name), _values_per_frame(record, name)
    values = length * per_frame
    incomplete = 1 if form == "310" and values % 3 == 2 else 0  # the second of three samples ends in the fourth byte
    expected = math.ceil(values * BYTES_PER_SAMPLE[form]) + incomplete + _offset(record, name)
    _, found = _existing(path, name)
    if found < expected:
        raise RecordError(
            f"{path.parent.name}/{name}: expected {expected} bytes ({per_frame} leads x {length} samples), found {found}; "
            "the file was cut: fetch it again"
        )


def _check_flac(path: Path, record: wfdb.Record, name: str, length: int) -> None:
    """Refuse a FLAC file whose own header says less; wfdb checks its channels and resolution."""
    per_frame = {record.samps_per_frame[channel] for channel in _group(record, name)}
    file, _ = _existing(path, name)
    try:
        with file.open("rb") as stream:
            if stream.read(4) != b"fLaC":
                raise RecordError(f"{path.parent.name}/{name}: expected a FLAC file, found something else; fetch it again")
            stream.seek(0)
            with soundfile.SoundFile(stream) as audio:
                found = audio.frames
    except (OSError, soundfile.SoundFileError, TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path.parent.name}/{name}: not a FLAC file that can be read; fetch it again") from error
    expected = length * max(per_frame) + _offset(record, name)
    if found < expected:
        raise RecordError(f"{path.parent.name}/{name}: expected {expected} samples, found {found}; fetch it again")


def _check_amount(path: Path, record: wfdb.Record, channels: Sequence[int], frames: int) -> None:
    names = {record.file_name[channel] for channel in channels}
    values = frames * sum(_values_per_frame(record, name) for name in names)
    if values > MOST_VALUES:
        raise RecordError(f"{path.name}: {values} samples to decode, at most {MOST_VALUES} are at once; read it in windows")


def _check_sum(path: Path, record: wfdb.Record, channel: int, signal: NDArray[np.int32]) -> None:
    """Compare the 16-bit sum of a whole signal with its header's, where it gives one."""
    expected = record.checksum[channel]
    found = int(signal.sum(dtype=np.int64)) & 0xFFFF
    if expected is not None and int(expected) & 0xFFFF != found:
        raise RecordError(
            f"{path.name}: lead {record.sig_name[channel]} sums to {found}, its header says {int(expected) & 0xFFFF}; "
            "the signal or the header was changed: fetch the record again"
        )
