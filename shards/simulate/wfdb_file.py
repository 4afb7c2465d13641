"""Writing one record as WFDB format 16: the header and the counts, byte for byte as PTB-XL stores them.

Format: https://physionet.org/physiotools/wag/header-5.htm and signal-5.htm.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.simulate.heart import Floats

LEAD_NAMES = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""As PTB-XL writes them, in the order of `shards.record.LEADS`."""

COUNTS_PER_MV = 1000


def write_wfdb(path: Path, millivolts: Floats, fs_hz: int) -> None:
    """Write `path`.dat and `path`.hea of a (12, samples) signal in mV, rounded to 1 µV."""
    counts = np.rint(millivolts * COUNTS_PER_MV).astype("<i2")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".dat").write_bytes(counts.T.tobytes())
    path.with_suffix(".hea").write_text(header(path.name, counts, fs_hz), encoding="ascii")


def header(name: str, counts: NDArray[np.int16], fs_hz: int) -> str:
    """Header of (12, samples) counts: for each lead its gain, first value and checksum (the sum modulo 65536)."""
    lines = [f"{name} {len(LEAD_NAMES)} {fs_hz} {counts.shape[1]}"]
    checksums = counts.sum(axis=1, dtype=np.int64) % 65536
    lines += [
        f"{name}.dat 16 {COUNTS_PER_MV:.1f}(0)/mV 16 0 {first} {checksum} 0 {lead}"
        for lead, first, checksum in zip(LEAD_NAMES, counts[:, 0], checksums, strict=True)
    ]
    return "\n".join(lines) + "\n"
