"""One record of nobody: a patient, what the heart does, when and in what shape, and what a reader would measure.

Everything but the samples is known once a case is drawn; `render` makes the samples at any rate. Case n of a seed
depends on the seed and n alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shards.simulate.beats import Shape, conducted_beat, premature_beat
from shards.simulate.findings import RATES, Findings, draw_findings
from shards.simulate.heart import Beat, Floats, heart_dipole, independent_leads, qrs_axis, qrs_leads, rotation, twelve_leads
from shards.simulate.noise import electrode_noise
from shards.simulate.rhythm import (
    Timeline,
    fibrillation_intervals,
    fibrillatory_waves,
    sinus_intervals,
    timeline,
    with_premature_beats,
)

# One stream of random numbers for each purpose, so that a change in one leaves the others as they were.
VISITS, PATIENT, FOLDS, FINDINGS, BEATS, NOISE, WORDS, PAPERS = range(8)

RECORDS_IN_BLOCK, PATIENTS_IN_BLOCK = 6, 4
"""Six records in a row belong to four patients: 1.5 records a patient, without looking at other blocks."""

SHORTEST_S = 8.0


@dataclass(frozen=True)
class Patient:
    """What stays the same from one record of a patient to the next."""

    number: int
    """Counts from 1."""
    age: int
    female: bool
    fold: int
    """1 to 10; ten patients in a row have ten different folds."""
    turn: Floats
    """(3, 3) position of the heart."""
    sokolow_mv: float
    p_ms: int
    pr_ms: int
    qrs_ms: int
    qtcf_ms: float
    """QT at a rate of 60/min, Fridericia."""
    p_gain: float
    t_gain: float


@dataclass(frozen=True)
class Measurements:
    """Intervals of the conducted beats, exact by construction."""

    rr_ms: float
    pr_ms: int | None
    qrs_ms: int
    qt_ms: int
    qrs_axis_deg: float

    @property
    def heart_rate(self) -> float:
        """1/min, from the mean RR interval."""
        return 60000.0 / self.rr_ms

    @property
    def qtc_ms(self) -> float:
        """Bazett 1920: QT divided by the square root of RR in seconds."""
        return self.qt_ms / math.sqrt(self.rr_ms / 1000.0)


@dataclass(frozen=True)
class Case:
    """One simulated recording before it is sampled."""

    seed: int
    number: int
    """Counts from 1, the `ecg_id`."""
    duration_s: float
    patient: Patient
    findings: Findings
    shape: Shape
    beats: Timeline
    conducted: Beat
    premature: Beat
    measurements: Measurements


def draw_case(seed: int, number: int, duration_s: float = 10.0, findings: Findings | None = None) -> Case:
    """Case `number` (from 1) of a seed, with findings drawn by prevalence unless they are given.

    Raises:
        ValueError: the recording would be too short for a premature beat between conducted ones.
    """
    if number < 1 or duration_s < SHORTEST_S:
        raise ValueError(f"expected a number from 1 and at least {SHORTEST_S:g} s, found number {number} and {duration_s:g} s")
    patient = draw_patient(seed, _patient_of(seed, number))
    found = findings or draw_findings(np.random.default_rng([seed, FINDINGS, number]))
    rng = np.random.default_rng([seed, BEATS, number])
    rr_s = _rr_s(rng, found)
    shape = _shape(rng, patient, found, rr_s)
    beats = _beats(rng, patient, found, shape, rr_s, duration_s)
    conducted = conducted_beat(shape)
    extra = premature_beat(shape, int(rng.integers(0, 3)), int(rng.integers(142, 172)), float(rng.uniform(0.9, 1.4)))
    measured = Measurements(
        rr_ms=beats.rr_ms(duration_s),
        pr_ms=shape.pr_ms,
        qrs_ms=shape.qrs_ms,
        qt_ms=shape.qt_ms,
        qrs_axis_deg=qrs_axis(qrs_leads(conducted, shape.qrs_ms / 1000)),
    )
    return Case(seed, number, duration_s, patient, found, shape, beats, conducted, extra, measured)


def render(case: Case, fs_hz: int = 500, noise: bool = True) -> Floats:
    """(12, samples) of a case in mV, leads as in `shards.record.LEADS`; without noise, what the heart alone gives."""
    samples = round(case.duration_s * fs_hz)
    kinds = (case.conducted, case.premature)
    beats = [(float(onset), kinds[int(early)]) for onset, early in zip(case.beats.onsets, case.beats.premature, strict=True)]
    dipole = heart_dipole(beats, samples, fs_hz)
    if case.findings.rhythm == "AFIB":
        rng = np.random.default_rng([case.seed, BEATS, case.number, 1])
        dipole += fibrillatory_waves(rng, np.arange(samples) / fs_hz)
    leads = independent_leads(dipole)
    if noise:
        leads += electrode_noise([case.seed, NOISE, case.number], samples, fs_hz)
    return twelve_leads(leads)


def draw_patient(seed: int, number: int) -> Patient:
    """Patient `number` (from 1) of a seed."""
    rng = np.random.default_rng([seed, PATIENT, number])
    age = int(np.clip(round(rng.normal(60, 18)), 18, 95))
    folds = np.random.default_rng([seed, FOLDS, (number - 1) // 10]).permutation(10)
    return Patient(
        number=number,
        age=age,
        female=bool(rng.random() < 0.48),
        fold=int(folds[(number - 1) % 10]) + 1,
        # With the years the heart lies flatter and its axis turns to the left.
        turn=rotation(float(np.clip(rng.normal(6 - 0.3 * (age - 40), 13), -36, 28)), rng.normal(0, 6), rng.normal(0, 5)),
        sokolow_mv=float(rng.uniform(1.7, 3.1)),
        p_ms=int(rng.integers(84, 112)),
        pr_ms=int(rng.integers(130, 191)),
        qrs_ms=int(rng.integers(80, 105)),
        qtcf_ms=float(rng.uniform(378, 415)),
        p_gain=float(rng.uniform(0.85, 1.25)),
        t_gain=float(rng.uniform(0.7, 1.35)),
    )


def _patient_of(seed: int, number: int) -> int:
    block, place = divmod(number - 1, RECORDS_IN_BLOCK)
    visits = np.random.default_rng([seed, VISITS, block]).permutation([0, 0, 1, 1, 2, 3])
    return block * PATIENTS_IN_BLOCK + int(visits[place]) + 1


def _rr_s(rng: np.random.Generator, found: Findings) -> float:
    """Mean RR interval in s; a fast heart is only moderately fast where a beat takes long or an early one has to fit in."""
    slowest, fastest = RATES[found.rhythm]
    crowded = found.conduction != "narrow" or found.first_degree_block or found.premature_beats
    if crowded and found.rhythm == "STACH":
        fastest = 114
    return 60.0 / float(rng.uniform(slowest, fastest))


def _shape(rng: np.random.Generator, patient: Patient, found: Findings, rr_s: float) -> Shape:
    qrs_ms = {
        "narrow": patient.qrs_ms + (6 if found.hypertrophy else 0),
        "CLBBB": int(rng.integers(138, 169)),
        "CRBBB": int(rng.integers(126, 151)),
    }[found.conduction]
    # A wide QRS lengthens QT by what it lasts longer: the recovery of the ventricles keeps its duration.
    qt_ms = round(patient.qtcf_ms * rr_s ** (1 / 3)) + max(0, qrs_ms - 100)
    sokolow_mv, st_mv = float(rng.uniform(3.8, 5.4)), float(rng.uniform(0.0, 1.0))
    return Shape(
        pr_ms=_pr_ms(rng, patient, found, 1000 * rr_s, qt_ms),
        p_ms=patient.p_ms,
        qrs_ms=qrs_ms,
        qt_ms=qt_ms,
        conduction=found.conduction,
        hypertrophy=found.hypertrophy,
        infarct=found.infarct,
        st_mv=0.24 + 0.20 * st_mv if found.infarct == "AMI" else 0.14 + 0.18 * st_mv,
        sokolow_mv=sokolow_mv if found.hypertrophy else patient.sokolow_mv,
        p_gain=patient.p_gain,
        t_gain=patient.t_gain,
        turn=patient.turn,
    )


def _pr_ms(rng: np.random.Generator, patient: Patient, found: Findings, rr_ms: float, qt_ms: int) -> int | None:
    """PR interval: long in first-degree block, shorter at high rates, and never so long that P hides in the T before."""
    if found.rhythm == "AFIB":
        return None
    room = int(rr_ms - qt_ms)
    if found.first_degree_block:
        return min(int(rng.integers(215, 300)), max(room + 20, 210))
    return min(patient.pr_ms, max(room, 130))


def _beats(
    rng: np.random.Generator, patient: Patient, found: Findings, shape: Shape, rr_s: float, duration_s: float
) -> Timeline:
    if found.rhythm == "AFIB":
        intervals = fibrillation_intervals(rng, rr_s, shape.qt_ms / 1000 + 0.02, duration_s)
    else:
        # Breathing moves the young heart's rate more.
        intervals = sinus_intervals(rng, rr_s, float(rng.uniform(0.3, 1.0)) * (0.045 - 0.0004 * patient.age), duration_s)
    beats = timeline(rng, intervals)
    if found.premature_beats:
        return with_premature_beats(rng, beats, shape.qt_ms / 1000 - 0.02, duration_s)
    return beats
