"""The optional steps on the signal of a build, and any source with its records after them.

build(Prepared(source, SignalSteps(rate_hz=400, remove_baseline=True)), "s3://ecg/ptb-xl-400", BuildOptions())
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.delineate import measure
from shards.plan import Kind, Plan, PlannedRecord, Source
from shards.record import EcgRecord, RecordError, quantise, to_millivolts
from shards.signal import Floats, derive_leads, remove_baseline, remove_powerline, resample

SLOWEST_HZ, FASTEST_HZ = 25.0, 10_000.0


@dataclass(frozen=True)
class SignalSteps:
    """What is done to the signal of every record, by default nothing; leads, baseline, mains, rate, in this order."""

    rate_hz: float | None = None
    """Sampling rate that every record is brought to."""
    remove_baseline: bool = False
    """High-pass at 0.8 Hz."""
    powerline_hz: float | None = None
    """Notch at the frequency of the mains."""
    derive_leads: bool = False
    """Fill limb leads that are missing from those that are there."""
    measure: bool = False
    """Measure intervals where the publisher gives none."""

    def __post_init__(self) -> None:
        """Raises `RecordError` where a value cannot be meant."""
        if self.rate_hz is not None and not SLOWEST_HZ <= self.rate_hz <= FASTEST_HZ:
            raise RecordError(
                f"--rate {self.rate_hz:g}: expected a sampling rate from {SLOWEST_HZ:g} to {FASTEST_HZ:g} Hz, such as 500"
            )
        if self.powerline_hz is not None and not 0 < self.powerline_hz < FASTEST_HZ / 2:
            raise RecordError(f"--powerline {self.powerline_hz:g}: expected the frequency of the mains in Hz, 50 or 60")

    def apply(self, record: EcgRecord) -> EcgRecord:
        """The record after the steps; a lead that no step changes keeps its counts bit for bit.

        Raises:
            RecordError: the record is too short for a filter, or its rate cannot be taken.
        """
        if not any((self.derive_leads, self.remove_baseline, self.powerline_hz, self.rate_hz, self.measure)):
            return record
        before = to_millivolts(record.ecg, record.mv_per_lsb)
        try:
            after, rate_hz = self._steps(before, record.fs_hz)
        except RecordError as error:
            raise RecordError(f"{record.source_path}: {error}") from None
        ecg, mv_per_lsb = _requantise(record, before, after)
        measurements = record.measurements
        if self.measure and not any(isinstance(value, int | float) for value in measurements.values()):
            measurements = measure(after, rate_hz)
        return replace(record, ecg=ecg, mv_per_lsb=mv_per_lsb, fs_hz=rate_hz, measurements=measurements)

    def _steps(self, mv: Floats, fs_hz: float) -> tuple[Floats, float]:
        if self.derive_leads:
            mv = derive_leads(mv)
        if self.remove_baseline:
            mv = remove_baseline(mv, fs_hz)
        if self.powerline_hz is not None:
            mv = remove_powerline(mv, fs_hz, self.powerline_hz)
        if self.rate_hz is not None and self.rate_hz != fs_hz:
            return resample(mv, fs_hz, self.rate_hz), self.rate_hz
        return mv, fs_hz


class Prepared:
    """Any source of ECGs, its records after `steps`: `build(Prepared(source, SignalSteps(rate_hz=400)), …)`."""

    kind: Kind = "ecg"

    def __init__(self, source: Source, steps: SignalSteps) -> None:
        """Raises `RecordError` where the source has no ECGs of its own to change."""
        if source.kind != "ecg":
            raise RecordError(
                f"{source.name}: --rate, --remove-baseline, --powerline, --derive-leads and --measure change ECGs, and its "
                f"samples are of kind {source.kind}; leave them away"
            )
        self.source = source
        self.steps = steps
        self.name = source.name
        self.simulated = source.simulated

    def provenance(self) -> dict[str, Any]:
        """The source's, and the steps as `signal`."""
        return {**self.source.provenance(), "signal": asdict(self.steps)}

    def plan(self) -> Plan:
        """The source's plan."""
        return self.source.plan()

    def read(self, planned: PlannedRecord) -> EcgRecord:
        """The source's record after the steps.

        Raises:
            RecordError: the source cannot read it, or a step cannot be taken on it.
        """
        record = self.source.read(planned)
        if not isinstance(record, EcgRecord):
            raise RecordError(f"{self.name}, {planned.record_id}: expected an ECG, found {type(record).__name__}")
        return self.steps.apply(record)


def _requantise(record: EcgRecord, before: Floats, after: Floats) -> tuple[NDArray[np.int16], list[float]]:
    """Counts of the leads that changed, next to those of the leads that did not."""
    ecg, mv_per_lsb = quantise(after, record.source_path)
    if after.shape == before.shape:
        same = np.all((after == before) | (np.isnan(after) & np.isnan(before)), axis=1)
        ecg[same] = record.ecg[same]
        mv_per_lsb = [old if kept else new for old, new, kept in zip(record.mv_per_lsb, mv_per_lsb, same, strict=True)]
    return ecg, mv_per_lsb
