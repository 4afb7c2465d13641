"""Read one WFDB record into int16 leads, by name, with everything a header can be wrong about checked.

Header and formats: https://physionet.org/physiotools/wag/header-5.htm (fields, checksum) and `wfdb` (decoding).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import wfdb
from numpy.typing import NDArray

from shards.record import RecordError, arrange_leads, keep_digital, millivolts_per_unit

FORMAT_16_INVALID = -32768
"""What the 16-bit formats store for a sample that was not recorded."""


@dataclass(frozen=True)
class WfdbSignal:
    """Twelve leads of a WFDB record."""

    ecg: NDArray[np.int16]
    """(12, samples)."""
    mv_per_lsb: list[float]
    fs_hz: float
    comments: list[str]


def read_wfdb(path: Path) -> WfdbSignal:
    """Read the record `path` (without extension).

    Raises:
        RecordError: the header or a signal file is absent, cut, damaged or without the twelve leads.
    """
    header = _read_header(path)
    _check_files(path, header)
    try:
        record = wfdb.rdrecord(str(path), physical=False)
    except Exception as error:  # wfdb raises whatever its parsers meet in a damaged file
        raise RecordError(
            f"{path.name}: the signal cannot be decoded ({type(error).__name__}: {error}); fetch it again"
        ) from error
    _check_sums(path, record)
    order = arrange_leads(record.sig_name, f"{path.name}.hea")
    scale = np.array([_millivolts(path, record, channel) for channel in order])
    digital = record.d_signal.T[order]
    baseline = np.array(record.baseline)[order]
    ecg, mv_per_lsb = keep_digital(digital, baseline, scale, digital == FORMAT_16_INVALID)
    return WfdbSignal(ecg, mv_per_lsb, float(record.fs), list(record.comments or []))


def _read_header(path: Path) -> wfdb.Record:
    if not path.with_suffix(".hea").is_file():
        raise RecordError(f"{path.name}.hea: no such file; fetch the record or remove its row")
    try:
        header = wfdb.rdheader(str(path))
    except Exception as error:
        raise RecordError(f"{path.name}.hea: not a WFDB header ({type(error).__name__}: {error}); fetch it again") from error
    if not getattr(header, "n_sig", 0) or not header.sig_len or not header.fs:
        raise RecordError(f"{path.name}.hea: expected signals, a length and a sampling rate, found none; fetch it again")
    return header


def _check_files(path: Path, header: wfdb.Record) -> None:
    """Refuse a 16-bit signal file that is shorter than its header says: wfdb would name a reshape, not a file."""
    for name in sorted(set(header.file_name)):
        file = path.parent / name
        if not file.is_file():
            raise RecordError(f"{path.parent.name}/{name}: no such file; fetch it or remove the record's row")
        here = [channel for channel, owner in enumerate(header.file_name) if owner == name]
        if all(header.fmt[channel] == "16" for channel in here):
            frames = sum(header.samps_per_frame[channel] or 1 for channel in here)
            expected = frames * header.sig_len * 2 + (header.byte_offset[here[0]] or 0)
            if file.stat().st_size < expected:
                raise RecordError(
                    f"{path.parent.name}/{name}: expected {expected} bytes ({len(here)} leads x {header.sig_len} samples), "
                    f"found {file.stat().st_size}; the file was cut: fetch it again"
                )


def _check_sums(path: Path, record: wfdb.Record) -> None:
    """Compare the 16-bit sum of every signal with its header's."""
    if record.checksum is None:
        return
    sums = record.d_signal.sum(axis=0, dtype=np.int64) & 0xFFFF
    for name, found, expected in zip(record.sig_name, sums, record.checksum, strict=True):
        if expected is not None and int(expected) & 0xFFFF != int(found):
            raise RecordError(
                f"{path.name}: lead {name} sums to {int(found)}, its header says {int(expected) & 0xFFFF}; "
                "the signal or the header was changed: fetch the record again"
            )


def _millivolts(path: Path, record: wfdb.Record, channel: int) -> float:
    factor = millivolts_per_unit(record.units[channel])
    gain = record.adc_gain[channel]
    if factor is None or not gain:
        raise RecordError(
            f"{path.name}.hea: lead {record.sig_name[channel]} has gain {gain!r} in {record.units[channel]!r}; "
            "expected counts for each mV, uV or V; mend the header"
        )
    return factor / float(gain)
