"""Valid recordings beside a corpus's folder, and the names by which a damaged file may ask for them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from shards.record import LEADS, EcgRecord, to_millivolts

STEM = "elsewhere"
LEVEL_MV = 7.777
"""Amplitude of the recordings: plus and minus in turn, so that their sums, and checksums, are 0."""
SAMPLES = 600
EXAMS = (11, 22)
FOLDER = "corpus"
"""Name of the folder of a case's corpus, which lies beside the lures."""


@dataclass(frozen=True)
class Lures:
    """How a file of a corpus can name what lies beside the corpus."""

    beside: Path
    """The folder in which the lures lie."""
    depth: int
    """Folders between the corpus's folder and the file."""

    def names(self, depth: int | None = None, end: str = "") -> list[str]:
        """Names of a lure as seen from a folder `depth` below the corpus (the file's own without it), and of other places."""
        up = "../" * ((self.depth if depth is None else depth) + 1)
        absolute = f"{self.beside / STEM}{end}"
        return [
            f"{up}{STEM}{end}",
            absolute,
            f"./{up}{STEM}{end}",
            f"{FOLDER}/../{up}{STEM}{end}",
            f"{up}{FOLDER}/../{STEM}{end}",
            f"file://{absolute}",
            f"local::{absolute}",
            f"{up}{STEM}{end}".replace("/", "\\"),
            f"{up}{STEM}{end}/",
            f"~/{STEM}{end}",
            f"/proc/self/root{absolute}",
            "/etc/passwd",
            "/dev/zero",
            "/dev/stdin",
            f"http://127.0.0.1:9/{STEM}{end}",
            f"https://example.org/{STEM}{end}",
            f"simplecache::http://127.0.0.1:9/{STEM}{end}",
            f"s3://bucket/{STEM}{end}",
        ]

    def within_reach(self, end: str = "") -> list[str]:
        """The names of `names` that the operating system itself would follow."""
        return self.names(end=end)[:5]


def write_lures(folder: Path) -> None:
    """Write one recording in each form that a source reads, none of which a corpus may lead to."""
    millivolts = np.where(np.arange(SAMPLES) % 2, -LEVEL_MV, LEVEL_MV)
    counts = np.tile(np.rint(millivolts * 1000).astype("<i2"), (len(LEADS), 1))
    (folder / f"{STEM}.dat").write_bytes(counts.T.tobytes())
    (folder / f"{STEM}.raw").write_bytes(np.tile(millivolts.astype("<f4"), 4096 * 12 * 4 // SAMPLES).tobytes())
    lines = [f"{STEM}.dat 16 1000/mV 16 0 {counts[0, 0]} 0 0 {lead}" for lead in LEADS]
    (folder / f"{STEM}.hea").write_text("\n".join([f"{STEM} 12 100 {SAMPLES}", *lines]) + "\n")
    scipy.io.savemat(folder / f"{STEM}.mat", {"ECG": {"sex": "Male", "age": 50.0, "data": counts / 1000}})
    with h5py.File(folder / f"{STEM}.h5", "w") as file:
        tracing = np.tile(np.where(np.arange(4096) % 2, -LEVEL_MV, LEVEL_MV)[:, None], (1, len(LEADS))).astype("f4")
        file["ecg"] = (counts / 1000).astype("f2")
        file["exam_id"] = file["id_exam"] = np.array(EXAMS, dtype=np.int64)
        file["tracings"] = file["signal"] = np.stack([tracing] * len(EXAMS))
    shutil.copyfile(folder / f"{STEM}.h5", folder / f"{STEM}.hdf5")
    joined = ";".join(map(str, counts[0]))
    (folder / f"{STEM}.json").write_text(json.dumps({"resolution": 1, "sampling": 100, **dict.fromkeys(LEADS, joined)}))
    (folder / f"{STEM}.txt").write_text(joined)


def is_lure(record: EcgRecord) -> bool:
    """Whether a record holds the signal of a lure, in millivolts or in the doubled values of the TNMG family."""
    millivolts = np.abs(to_millivolts(record.ecg, record.mv_per_lsb))
    return any(bool(np.mean(np.abs(millivolts - level) < 0.05) > 0.05) for level in (LEVEL_MV, LEVEL_MV / 2))
