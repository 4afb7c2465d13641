"""One ECG record and the sample it becomes in a shard: leads, units, quantisation, JSON.

A sample is two members of a WebDataset shard, `<key>.ecg.npy` and `<key>.json`. The signal is int16 with one scale a
lead, so that what a 16-bit recorder stored is kept exactly:

    millivolts = ecg.npy[lead] * mv_per_lsb[lead]        (-32768 marks a sample that is not valid)
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, cached_property, lru_cache
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Order of the twelve leads everywhere in this project; sources are brought to it by name, never by position."""

INVALID = -32768
"""The int16 value of a sample that is missing, unreadable or padding."""

ECG_MARK = "<ecg>"
"""Where an ECG stands in the text of a conversation; a conversation has as many marks as ECGs, in their order."""

MOST_SHOWN, LONGEST_SHOWN, LONGEST_LIST = 40, 60, 240
"""Names that a sentence lists, characters of one, and of all."""

LARGEST = 32767
LARGEST_MV = 1e9
"""A megavolt: amplitudes beyond it are damage, and their squares soon no numbers."""
FINEST_LSB_MV = 0.001
"""Float sources are quantised at 1 µV, coarser only where the amplitude does not fit int16 otherwise."""

JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, allow_nan=False)
"""Of descriptions: the same description always gives the same bytes."""

MILLIVOLTS_PER_UNIT = {"mv": 1.0, "v": 1e3, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

VAL_FROM, TEST_FROM = 0.8, 0.9
"""Where the splits begin in a hash from 0 to 1, where no publisher says."""


class RecordError(ValueError):
    """A record that cannot become a sample: one sentence with the file or field, what was expected and what was found."""


@dataclass(frozen=True)
class Statement:
    """One coded finding as its publisher gave it."""

    code: str
    vocabulary: str
    """Coding system: SCP, SNOMED CT, AHA, CPSC or CODE."""
    likelihood: float | None = None
    """Per cent, 0 to 100; None where the publisher gives none."""


@dataclass
class EcgRecord:
    """A 12-lead ECG with everything its publisher says about it."""

    source: str
    record_id: str
    source_path: str
    patient_id: str
    split: Split
    fs_hz: float
    ecg: NDArray[np.int16]
    """Shape (12, samples), leads as in `LEADS`."""
    mv_per_lsb: list[float]
    """Millivolts of one count, for each of the twelve leads."""
    acquired: str | None = None
    report: str | None = None
    """English text, or None."""
    report_source: str | None = None
    """`publisher`, `translation` or `made from statements`."""
    report_original: str | None = None
    report_language: str | None = None
    statements: list[Statement] = field(default_factory=list)
    labels: dict[str, int | None] = field(default_factory=dict)
    """Finding → 1 present, 0 absent, None unknown; with a colon, a class that follows from findings: `superclass:MI`."""
    annotations: dict[str, Any] = field(default_factory=dict)
    age: float | None = None
    age_note: str | None = None
    """What a published stand-in for the age means, such as `over 89`; the age is None then."""
    sex: Literal["M", "F"] | None = None
    outcome: dict[str, Any] | None = None
    """`death` (True, False or null), `follow_up_years`, where they are published."""
    measurements: dict[str, Any] = field(default_factory=dict)
    """`rr`, `pr`, `qrs`, `qt`, `qtc` in ms, `heart_rate` in 1/min, `p_axis`, `qrs_axis`, `t_axis` in degrees, null where
    unknown; `qtc_formula`; `source` (`publisher`, `simulation`, or the delineator with its version)."""
    dropped_channels: list[str] = field(default_factory=list)
    """Channels of the source that are none of the twelve leads, or no voltage."""

    @property
    def key(self) -> str:
        """Name of the sample in its shard; holds no dot, which WebDataset would take for an extension."""
        return sample_key(self.source, self.record_id)

    @cached_property
    def quality(self) -> dict[str, Any]:
        """What is visibly wrong with the signal."""
        return signal_quality(self.ecg)

    def to_members(self) -> dict[str, bytes]:
        """The sample as shard members, extension → bytes; the same record always gives the same bytes."""
        description = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "ecg"}
        description["statements"] = [vars(statement) for statement in self.statements]
        description["leads"] = LEADS
        description["quality"] = self.quality
        text = JSON.encode(description)
        return {"ecg.npy": b"".join((npy_header(self.ecg.shape), np.ascontiguousarray(self.ecg).data)), "json": text.encode()}

    def index_row(self) -> dict[str, Any]:
        """What the index says of it, but for where it lies."""
        return {
            "key": self.key,
            "split": self.split,
            "source": self.source,
            "record_id": self.record_id,
            "patient_hash": digest(self.source, self.patient_id),
            "text_hash": digest(self.report) if self.report else "",
            "fs_hz": self.fs_hz,
            "ecgs": 1,
            "samples": self.ecg.shape[1],
            "mv_per_lsb": self.mv_per_lsb,
            "invalid_fraction": self.quality["invalid_fraction"],
            "missing_leads": len(self.quality["missing_leads"]),
            "flat_leads": len(self.quality["flat_leads"]),
            "peak_mv": peak_mv(self.ecg, self.mv_per_lsb),
            "text_length": len(self.report or ""),
            "labels": sorted(name for name, value in self.labels.items() if value == 1),
            "unknown_labels": sorted(name for name, value in self.labels.items() if value is None),
            "answers": [],
        }


def sample_key(source: str, record_id: str) -> str:
    """Key of a record in a shard: source and id joined, anything but letters, digits, `_` and `-` made `_`."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"{source}-{record_id}")


def findings_of(labels: Mapping[str, int | None]) -> dict[str, int | None]:
    """The labels that are findings themselves, without the classes that follow from them."""
    return {name: value for name, value in labels.items() if ":" not in name}


def digest(*parts: str) -> str:
    """Sixteen hexadecimal digits that stand for the parts: how patients and texts are compared without being named."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def split_by_hash(*names: str) -> Split:
    """The split of a patient, or of what belongs to none: 80 % train, 10 % val, 10 % test, by a hash of (source, patient)."""
    digest = hashlib.sha256("\x1f".join(names).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if place < VAL_FROM else "val" if place < TEST_FROM else "test"


@lru_cache(maxsize=1024)
def standard_lead(name: str) -> str | None:
    """The lead of `LEADS` that a publisher's channel name means, or None: `AVR` → `aVR`, `DI` → `I`, `lead v1` → `V1`."""
    wanted = re.sub(r"^((lead|ecg)[ _]*)+", "", name.strip().lower())
    wanted = re.sub(r"^d(?=i{1,3}$)", "", wanted)
    return next((lead for lead in LEADS if lead.lower() == wanted), None)


def millivolts_per_unit(unit: str) -> float | None:
    """Factor from a unit's name to millivolts, or None where the unit is no voltage."""
    return MILLIVOLTS_PER_UNIT.get(unit.strip().lower())


def shown(names: Iterable[str]) -> str:
    """Names of channels or datasets for a sentence, one line of it however many they are and whatever is in them."""
    text = ", ".join(name[:LONGEST_SHOWN] for name in islice(names, MOST_SHOWN))
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST]} …"


def lead_positions(names: Sequence[str], where: str) -> dict[str, int]:
    """Standard lead → its position among a source's channels, for those that are there.

    Raises:
        RecordError: a lead is given twice; the sentence names `where` and the channels found.
    """
    found = [standard_lead(name) for name in names]
    double = [lead for lead in LEADS if found.count(lead) > 1]
    if double:
        raise RecordError(f"{where}: lead {double[0]} stands for more than one of the channels {shown(names)}; keep one")
    return {lead: found.index(lead) for lead in LEADS if lead in found}


def arrange_leads(names: Sequence[str], where: str) -> list[int]:
    """Positions of the twelve standard leads among a source's channels, for a source that has all of them.

    Raises:
        RecordError: a lead is missing or given twice; the sentence names `where` and the channels found.
    """
    positions = lead_positions(names, where)
    missing = [lead for lead in LEADS if lead not in positions]
    if missing:
        raise RecordError(
            f"{where}: expected the leads {', '.join(LEADS)}, found the channels {shown(names)}: "
            f"{', '.join(missing)} missing; mend the channel names in the header or leave the record out"
        )
    return [positions[lead] for lead in LEADS]


def keep_digital(
    digital: NDArray[np.integer], baseline: NDArray[np.integer], mv_per_lsb: NDArray[np.float64], invalid: NDArray[np.bool_]
) -> tuple[NDArray[np.int16], list[float]]:
    """Counts of a digital source less their baseline, exact wherever they fit int16.

    Args:
        digital: (12, samples) counts as stored.
        baseline: (12,) count that means 0 mV.
        mv_per_lsb: (12,) millivolts of one count.
        invalid: (12, samples) samples that the source marks as missing.

    Returns:
        (12, samples) int16 and the scale of each lead; a lead that does not fit is quantised more coarsely.
    """
    counts = digital.astype(np.int64) - baseline[:, None].astype(np.int64)
    if not np.any(np.abs(np.where(invalid, 0, counts)) > LARGEST):
        ecg = np.where(invalid, INVALID, counts).astype(np.int16)
        return ecg, [float(scale) for scale in mv_per_lsb]
    return quantise(np.where(invalid, np.nan, counts * mv_per_lsb[:, None]))


def quantise(millivolts: NDArray[np.floating], where: str = "signal") -> tuple[NDArray[np.int16], list[float]]:
    """Nearest int16 of a float signal, at most half an LSB off, never clipped; NaN and infinity become `INVALID`.

    Args:
        millivolts: (12, samples).
        where: the file, for the sentence of an error.

    Returns:
        (12, samples) int16 and the LSB of each lead in mV: 1 µV, or as much more as the lead's amplitude needs.

    Raises:
        RecordError: an amplitude is larger than `LARGEST_MV`.
    """
    signal = millivolts.astype(np.float64)
    valid = np.isfinite(signal)
    peak = np.max(np.abs(np.where(valid, signal, 0.0)), axis=1)
    if peak.max() > LARGEST_MV:
        raise RecordError(
            f"{where}: reaches {peak.max():.3g} mV, expected at most {LARGEST_MV:g} mV; it is damaged: fetch the record again"
        )
    scale = np.maximum(FINEST_LSB_MV, peak / LARGEST)
    ecg = np.where(valid, np.rint(np.where(valid, signal, 0.0) / scale[:, None]), INVALID)
    return ecg.astype(np.int16), [float(value) for value in scale]


def to_millivolts(ecg: NDArray[np.int16], mv_per_lsb: Sequence[float]) -> NDArray[np.float64]:
    """(12, samples) counts to millivolts; invalid samples become NaN."""
    signal = ecg * np.asarray(mv_per_lsb, dtype=np.float64)[:, None]
    return np.where(ecg == INVALID, np.nan, signal)


def peak_mv(ecg: NDArray[np.int16], mv_per_lsb: Sequence[float]) -> float:
    """Largest amplitude of a (12, samples) signal in millivolts, to 0.1 µV; 0 where no sample is valid."""
    low, high = _extremes(ecg)
    counts = np.maximum(np.abs(low.astype(np.int32)), np.abs(high.astype(np.int32)))
    return round(float(np.max(np.where(low <= high, counts, 0) * np.asarray(mv_per_lsb, dtype=np.float64))), 4)


def signal_quality(ecg: NDArray[np.int16]) -> dict[str, Any]:
    """What is visibly wrong with a (12, samples) signal.

    Returns:
        `missing_leads` without a valid sample, `flat_leads` with one value all along, `invalid_fraction` of all samples,
        and `clipped_leads` with more than one sample at the end of the range.
    """
    low, high = _extremes(ecg)
    at_the_end = [lead for lead in range(len(LEADS)) if high[lead] == LARGEST or low[lead] == -LARGEST]
    return {
        "missing_leads": [lead for lead, bottom, top in zip(LEADS, low, high, strict=True) if bottom > top],
        "flat_leads": [lead for lead, bottom, top in zip(LEADS, low, high, strict=True) if bottom == top],
        "invalid_fraction": round(np.count_nonzero(ecg == INVALID) / max(ecg.size, 1), 6),
        "clipped_leads": [
            LEADS[lead] for lead in at_the_end if np.count_nonzero(np.abs(ecg[lead].astype(np.int32)) == LARGEST) > 1
        ],
    }


def _extremes(ecg: NDArray[np.int16]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Least and greatest valid count of each lead; the least is above the greatest where a lead has no valid sample."""
    low, high = ecg.min(axis=1, initial=LARGEST), ecg.max(axis=1, initial=-LARGEST)
    if low.min() == INVALID:
        valid = ecg != INVALID
        low = np.min(ecg, axis=1, initial=LARGEST, where=valid)
        high = np.max(ecg, axis=1, initial=-LARGEST, where=valid)
    return low, high


@cache
def npy_header(shape: tuple[int, ...]) -> bytes:
    """What stands before the numbers in the `.npy` member of an ECG: shape (12, samples), int16."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i2", "fortran_order": False, "shape": shape})
    return header.getvalue()
