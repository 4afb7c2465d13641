"""Data sets of a few small ECGs, made in no time: for laws about reading that hold whatever is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shards.build import BuildOptions, build
from shards.plan import Plan, PlannedRecord
from shards.record import INVALID, EcgRecord

SAMPLES = 40


class SmallSource:
    """ECGs of less than a second, all of one split: every fifth has a gap, every tenth no report; patients have two each."""

    kind = "ecg"
    simulated = True

    def __init__(self, name: str, records: int, rates: Sequence[float] = (100.0,), longest: int = SAMPLES) -> None:
        self.name, self.records, self.rates, self.longest = name, records, rates, longest

    def provenance(self):
        return {}

    def plan(self):
        return Plan([PlannedRecord(str(number), "train", {"number": number}) for number in range(self.records)], [], [])

    def read(self, planned):
        number = planned.row["number"]
        generator = np.random.default_rng(number)
        samples = self.longest if self.longest == SAMPLES else int(generator.integers(SAMPLES // 2, self.longest))
        ecg = generator.integers(-3000, 3000, (12, samples)).astype(np.int16)
        if number % 5 == 4:
            ecg[3, 5:9] = INVALID
        return EcgRecord(
            source=self.name,
            record_id=planned.record_id,
            source_path=planned.record_id,
            patient_id=str(number // 2),
            split=planned.split,
            fs_hz=float(self.rates[number % len(self.rates)]),
            ecg=ecg,
            mv_per_lsb=generator.uniform(0.001, 0.01, 12).tolist(),
            report=None if number % 10 == 9 else f"report {number % 7}",
            labels={"AFIB": int(number % 3 == 0), "NORM": int(number % 3 != 0)},
        )


def build_small_set(folder: Path | str, records: int, records_per_shard: int, name: str = "small", **source) -> str:
    """URI of a data set with so many ECGs."""
    build(SmallSource(name, records, **source), str(folder), BuildOptions(records_per_shard=records_per_shard))
    return str(folder)
