"""Decode any WFDB record into int16 leads, by name: every format, skew, several samples a frame, segments and gaps.

The samples are those of `wfdb`, which decodes the files; here its header is checked against the files first, so that no
claim of a header costs memory, and lead names, units, skew and gaps are brought to the project's record.
Formats: https://physionet.org/physiotools/wag/signal-5.htm, headers: https://physionet.org/physiotools/wag/header-5.htm
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray

from shards.record import (
    FINEST_LSB_MV,
    INVALID,
    LEADS,
    RecordError,
    arrange_leads,
    keep_digital,
    lead_positions,
    millivolts_per_unit,
    quantise,
    shown,
)
from shards.sources.paths import within
from shards.sources.wfdb_files import checked_length, read_channels
from shards.sources.wfdb_header import Header, read_header

MOST_SAMPLES = 4_000_000
"""Samples a lead that are decoded at once; 2.2 hours at 500 Hz. Longer records are read in windows."""
MOST_SEGMENTS = 1000
"""Segments that are read at once."""
LARGEST_BASELINE = 2**31
SMALLEST_LSB_MV, LARGEST_LSB_MV = 1e-9, 1e9
"""Bounds of what a gain can mean; beyond them it is damage."""

DATE_AND_TIME = re.compile(r"\s*(\d{1,2}:\d{1,2}:\d{1,2})(\.\d{1,6})?\d*\s+(\d{1,2}/\d{1,2}/\d{4})\s*")


@dataclass(frozen=True)
class WfdbSignal:
    """Twelve leads of a WFDB record."""

    ecg: NDArray[np.int16]
    """(12, samples)."""
    mv_per_lsb: list[float]
    fs_hz: float
    """Samples of a lead a second."""
    comments: list[str]
    dropped_channels: list[str]
    """Channels that are none of the twelve leads, or no voltage."""
    acquired: str | None
    """Date and time of the first sample, where the header has both."""


@dataclass(frozen=True)
class _Stretch:
    """One lead over a part of what is read."""

    start: int
    """Its first sample, counted from the first that is read."""
    counts: NDArray[np.integer]
    """(samples,) as stored."""
    invalid: NDArray[np.bool_]
    """(samples,)."""
    baseline: int
    mv_per_lsb: float


@dataclass(frozen=True)
class _Segment:
    """A part of a record that has signal files of its own."""

    path: Path
    start: int
    """Its first frame in the record."""
    frames: int
    header: wfdb.Record


def decode_wfdb(path: Path, window: tuple[int, int] | None = None, *, every_lead: bool = False) -> WfdbSignal:
    """Decode the record `path` (without extension).

    Counts are exact, less their baseline, wherever they fit int16 and a lead keeps its gain through all segments; else the
    lead is quantised. A lead that the record does not have, a gap between segments, and what the format marks as not
    recorded are `INVALID`. Checksums are verified where a file is read whole; of a part they cannot be.

    Args:
        path: the record.
        window: first frame and the frame after the last; all of them without it. A frame is one sample of a channel that
            has one a frame; a lead with k samples a frame has k times the record's rate.
        every_lead: refuse a record without all twelve leads.

    Raises:
        RecordError: the header or a signal file is absent, cut, damaged or too long to be read at once, or holds no lead.
    """
    header = read_header(path)
    where, reference = _reference(path, header)
    leads = _leads(reference, where, every_lead)
    per_frame = _samples_per_frame(reference, leads, where)
    length = _length(path, header)
    first, stop = window or (0, length)
    _check_window(path, first, stop, length, per_frame)
    stretches: dict[str, list[_Stretch]] = {lead: [] for lead in leads}
    for segment in _segments(path, header, first, stop):
        for lead, stretch in _read_segment(segment, first, stop, per_frame):
            if lead in stretches:  # what the layout names otherwise is no lead of the record
                stretches[lead].append(stretch)
    ecg, mv_per_lsb = _assemble(stretches, (stop - first) * per_frame)
    dropped = [name for channel, name in enumerate(_names(reference)) if channel not in leads.values()]
    acquired = acquired_at(" ".join(header.record_line.split()[4:]), first / header.fields.fs)
    return WfdbSignal(ecg, mv_per_lsb, float(header.fields.fs * per_frame), header.comments, dropped, acquired)


def record_length(path: Path) -> tuple[int, float]:
    """Frames of the record `path` and frames a second, by its header where its files hold as much.

    Raises:
        RecordError: the header is absent or damaged, names no lead, or a file is shorter than it says.
    """
    header = read_header(path)
    where, reference = _reference(path, header)
    _samples_per_frame(reference, _leads(reference, where), where)
    return _length(path, header), float(header.fields.fs)


def acquired_at(text: str, seconds: float = 0.0) -> str | None:
    """`17:27:45 15/08/1994`, what ends a record's first line, as `1994-08-15 17:27:45`; None where it is not both.

    Args:
        text: time and date as the header has them.
        seconds: from then to the first sample that is read.
    """
    match = DATE_AND_TIME.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime.strptime(f"{match[3]} {match[1]}{match[2] or '.0'}", "%d/%m/%Y %H:%M:%S.%f")
        return (moment + timedelta(seconds=seconds)).isoformat(sep=" ")
    except (ValueError, OverflowError):
        return None


def _reference(path: Path, header: Header) -> tuple[str, wfdb.Record]:
    """The header that names the channels of the whole record, and its file: its own, its layout's, or its first segment's."""
    if isinstance(header.fields, wfdb.Record):
        return f"{path.name}.hea", header.fields
    name = next((name for name in header.fields.seg_name if name != "~"), None)
    if name is None:
        raise RecordError(f"{path.name}.hea: all its segments are gaps; leave the record out")
    return f"{name}.hea", _segment_header(path, header, name)


def _segment_header(path: Path, header: Header, name: str) -> wfdb.Record:
    fields = read_header(within(path.parent, name, f"{path.name}.hea")).fields
    if not isinstance(fields, wfdb.Record):
        raise RecordError(f"{name}.hea: is made of segments itself, and is a segment of {path.name}; expected signals")
    if fields.fs != header.fields.fs:
        raise RecordError(f"{name}.hea: {fields.fs:g} Hz, and {path.name}.hea {header.fields.fs:g} Hz; mend the headers")
    return fields


def _names(record: wfdb.Record) -> list[str]:
    return [name or f"channel {channel}" for channel, name in enumerate(record.sig_name)]


def _leads(record: wfdb.Record, where: str, every_lead: bool = False) -> dict[str, int]:
    """Standard lead → its channel, for the channels that are voltages.

    Raises:
        RecordError: there is a lead twice, or `every_lead` is wanted and one is missing.
    """
    channels = [
        name[:40] if millivolts_per_unit(unit) is not None else f"{name[:40]} in {unit[:20]}"
        for name, unit in zip(_names(record), record.units, strict=True)
    ]
    if every_lead:
        return dict(zip(LEADS, arrange_leads(channels, where), strict=True))
    return lead_positions(channels, where)


def _samples_per_frame(record: wfdb.Record, leads: dict[str, int], where: str) -> int:
    """Samples that each of the leads has in a frame.

    Raises:
        RecordError: there is no lead, or they differ.
    """
    if not leads:
        channels = shown(f"{name[:40]} ({unit[:20]})" for name, unit in zip(_names(record), record.units, strict=True))
        raise RecordError(f"{where}: found the channels {channels}, none of the twelve leads in volts; leave the record out")
    found = {lead: int(record.samps_per_frame[channel]) for lead, channel in leads.items()}
    if len(set(found.values())) > 1:
        rates = ", ".join(f"{lead} {record.fs * samples:g} Hz" for lead, samples in found.items())
        raise RecordError(f"{where}: expected leads of one sampling rate, found {rates}; bring them to one and write it again")
    return next(iter(found.values()))


def _length(path: Path, header: Header) -> int:
    """Frames of the whole record; of one piece, its files hold as many."""
    fields = header.fields
    if isinstance(fields, wfdb.Record):
        return checked_length(path, fields, _channels(fields, path))
    length = sum(fields.seg_len)
    if fields.sig_len not in (None, length):
        raise RecordError(f"{path.name}.hea: {fields.sig_len} samples, and its segments have {length}; fetch it again")
    return length


def _check_window(path: Path, first: int, stop: int, length: int, per_frame: int) -> None:
    if not 0 <= first < stop <= length:
        raise RecordError(f"{path.name}: frames {first} to {stop} asked for, it has {length}; ask for those it has")
    if (stop - first) * per_frame > MOST_SAMPLES:
        raise RecordError(
            f"{path.name}: {(stop - first) * per_frame} samples a lead, at most {MOST_SAMPLES} are read at once; "
            "read it in windows"
        )


def _segments(path: Path, header: Header, first: int, stop: int) -> Iterator[_Segment]:
    """The parts with signal files that hold some of the frames."""
    fields = header.fields
    if isinstance(fields, wfdb.Record):
        yield _Segment(path, 0, checked_length(path, fields, _channels(fields, path)), fields)
        return
    start, read = 0, 0
    for name, frames in zip(fields.seg_name, fields.seg_len, strict=True):
        if name != "~" and start < stop and first < start + frames:
            read += 1
            if read > MOST_SEGMENTS:
                raise RecordError(f"{path.name}: more than {MOST_SEGMENTS} segments to read at once; read it in windows")
            yield _segment(path, header, name, start, frames)
        start += frames


def _segment(path: Path, header: Header, name: str, start: int, frames: int) -> _Segment:
    own, segment = _segment_header(path, header, name), within(path.parent, name, f"{path.name}.hea")
    found = checked_length(segment, own, _channels(own, segment))
    if found != frames:
        raise RecordError(f"{name}.hea: {found} samples, and {path.name}.hea gives it {frames}; fetch the record again")
    return _Segment(segment, start, frames, own)


def _read_segment(segment: _Segment, first: int, stop: int, per_frame: int) -> Iterator[tuple[str, _Stretch]]:
    """What a segment has of the frames `first` to `stop` of the record, lead by lead."""
    record, where = segment.header, f"{segment.path.name}.hea"
    leads = {lead: channel for lead, channel in _leads(record, where).items() if record.file_name[channel] != "~"}
    if not leads:
        return
    if _samples_per_frame(record, leads, where) != per_frame:
        raise RecordError(f"{where}: another number of samples in a frame than the rest of the record; mend the headers")
    begin = max(first, segment.start)
    end = min(stop, segment.start + segment.frames)
    signals = read_channels(
        segment.path, record, list(leads.values()), segment.frames, begin - segment.start, end - segment.start
    )
    for (lead, channel), (counts, invalid) in zip(leads.items(), signals, strict=True):
        baseline, scale = _calibration(record, channel, where)
        yield lead, _Stretch((begin - first) * per_frame, counts, invalid, baseline, scale)


def _channels(record: wfdb.Record, path: Path) -> list[int]:
    """The channels that are leads and have a file."""
    leads = _leads(record, f"{path.name}.hea")
    return [channel for channel in leads.values() if record.file_name[channel] != "~"]


def _calibration(record: wfdb.Record, channel: int, where: str) -> tuple[int, float]:
    """The count of 0 mV, and millivolts of one count; wfdb has put 200/mV where no gain is given, and 0 V at ADC zero."""
    baseline, gain = int(record.baseline[channel]), float(record.adc_gain[channel])
    scale = (millivolts_per_unit(record.units[channel]) or 0.0) / gain
    if abs(baseline) > LARGEST_BASELINE or not SMALLEST_LSB_MV <= abs(scale) <= LARGEST_LSB_MV:
        raise RecordError(
            f"{where}: lead {record.sig_name[channel]} has gain {gain:g} and baseline {str(baseline)[:20]} in "
            f"{record.units[channel]!r}; expected counts for each mV, uV or V; mend the header"
        )
    return baseline, scale


def _assemble(stretches: dict[str, list[_Stretch]], samples: int) -> tuple[NDArray[np.int16], list[float]]:
    """(12, samples) int16 and the scale of each lead, `INVALID` wherever no stretch lies."""
    ecg = np.full((len(LEADS), samples), INVALID, dtype=np.int16)
    mv_per_lsb = [FINEST_LSB_MV] * len(LEADS)
    for place, lead in enumerate(LEADS):
        if stretches.get(lead):
            ecg[place], mv_per_lsb[place] = _join(stretches[lead], samples)
    return ecg, mv_per_lsb


def _join(stretches: list[_Stretch], samples: int) -> tuple[NDArray[np.int16], float]:
    """One lead: its counts where they mean the same throughout, else millivolts anew."""
    scales = {stretch.mv_per_lsb for stretch in stretches}
    counts = np.zeros(samples, dtype=np.int64)
    units = np.ones(samples)
    invalid = np.ones(samples, dtype=np.bool_)
    for stretch in stretches:
        here = slice(stretch.start, stretch.start + len(stretch.counts))
        sign = -1 if stretch.mv_per_lsb < 0 else 1
        counts[here] = (stretch.counts.astype(np.int64) - stretch.baseline) * sign
        units[here] = abs(stretch.mv_per_lsb)
        invalid[here] = stretch.invalid
    if len(scales) > 1:
        ecg, mv_per_lsb = quantise(np.where(invalid, np.nan, counts * units)[None])
    else:
        unit = np.array([abs(scale) for scale in scales])
        ecg, mv_per_lsb = keep_digital(counts[None], np.zeros(1, dtype=np.int64), unit, invalid[None])
    return ecg[0], mv_per_lsb[0]
