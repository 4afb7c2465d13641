"""Plain WFDB records, read many times as fast as `wfdb` reads them: twelve leads as 16-bit samples in one file.

That is the form of PTB-XL, MIMIC-IV-ECG, Chapman-Shaoxing-Ningbo and the PhysioNet Challenges. Whatever is not plain, or
not as its header says, is left to the general decoder, which reads every format and knows how to say what is wrong.
Header: https://physionet.org/physiotools/wag/header-5.htm
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.record import INVALID, LEADS, keep_digital, millivolts_per_unit, standard_lead
from shards.sources.wfdb_decoder import WfdbSignal, acquired_at

RECORD_LINE = re.compile(r"[\w-]+ 12 (\d{1,5}(?:\.\d{1,6})?) ([1-9]\d{0,8})( .*)?")
"""Name, signals, sampling rate, samples, and perhaps time and date."""

SIGNAL_LINE = re.compile(
    r"([\w-]+\.\w+) 16(?:x1)?(?:\+(\d{1,6}))? (\d{1,9}(?:\.\d{1,9})?)(?:\((-?\d{1,5})\))?/(\w+)"
    r" \d+ (-?\d{1,5}) -?\d+ (-?\d{1,6}) 0 (\w+)"
)
"""File, offset of the first sample, gain, baseline, unit, zero of the converter, checksum, name."""


def read_plain(path: Path) -> WfdbSignal | None:
    """The record `path` (without extension), or None where it is not plain or not as its header says."""
    try:
        lines = path.with_name(path.name + ".hea").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    head = RECORD_LINE.fullmatch(lines[0].rstrip()) if lines else None
    signals = [match for line in lines[1 : 1 + len(LEADS)] if (match := SIGNAL_LINE.fullmatch(line.rstrip()))]
    comments = lines[1 + len(LEADS) :]
    if head is None or len(signals) < len(LEADS) or any(not comment.startswith("#") for comment in comments):
        return None
    files, offsets, gains, baselines, units, zeros, sums, names = zip(*(signal.groups() for signal in signals), strict=True)
    leads = [standard_lead(name) for name in names]
    factors = [millivolts_per_unit(unit) for unit in units]
    if len(set(zip(files, offsets, strict=True))) > 1 or not set(LEADS) <= set(leads):
        return None
    frames = _read_frames(path.with_name(files[0]), int(offsets[0] or 0), int(head[2]))
    if frames is None or float(head[1]) == 0:
        return None
    order = [leads.index(lead) for lead in LEADS]
    digital = np.ascontiguousarray(frames.T[order])
    found = digital.view(np.uint16).sum(axis=1, dtype=np.uint16)
    scales = [(factors[place] or 0.0) / (float(gains[place]) or np.inf) for place in order]
    if found.tolist() != [int(sums[place]) & 0xFFFF for place in order] or not all(scales):
        return None
    baseline = np.array([int(baselines[place] if baselines[place] is not None else zeros[place]) for place in order])
    ecg, mv_per_lsb = _less_baseline(digital, baseline, scales)
    said = [comment.strip(" \t#") for comment in comments]
    return WfdbSignal(ecg, mv_per_lsb, float(head[1]), said, [], acquired_at(head[3] or ""))


def _read_frames(file: Path, offset: int, samples: int) -> NDArray[np.int16] | None:
    """(samples, 12) counts, or None where the file does not hold them."""
    count = samples * len(LEADS)
    try:
        with file.open("rb", buffering=0) as opened:
            # A damaged header may claim any number of samples: nothing is allocated before the file is known to hold them.
            if os.fstat(opened.fileno()).st_size < offset + 2 * count:
                return None
            return np.fromfile(opened, dtype="<i2", count=count, offset=offset).reshape(samples, len(LEADS))
    except OSError:
        return None


def _less_baseline(
    digital: NDArray[np.int16], baseline: NDArray[np.int64], scales: list[float]
) -> tuple[NDArray[np.int16], list[float]]:
    """The counts as they are where 0 mV is count 0: format 16 marks what was not recorded as we do."""
    if not baseline.any():
        return digital, scales
    return keep_digital(digital, baseline, np.array(scales), digital == INVALID)
