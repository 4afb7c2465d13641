"""When the heart beats: regular with breathing, fibrillating, and with premature beats between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.simulate.heart import Floats


@dataclass(frozen=True)
class Timeline:
    """QRS onsets of a recording, from before its start to after its end."""

    onsets: Floats
    """(beats,), s from the start of the recording."""
    premature: NDArray[np.bool_]
    """(beats,), True for a ventricular premature beat."""

    def rr_ms(self, duration_s: float) -> float:
        """Mean interval between neighbouring conducted beats whose onsets both lie in the recording, ms."""
        inside = (self.onsets >= 0) & (self.onsets < duration_s) & ~self.premature
        pairs = inside[1:] & inside[:-1]
        return 1000.0 * float(np.diff(self.onsets)[pairs].mean())


def sinus_intervals(rng: np.random.Generator, rr_s: float, arrhythmia: float, duration_s: float) -> Floats:
    """RR intervals in s that swing with breathing by the fraction `arrhythmia`, enough for the recording and its edges."""
    count = int(duration_s / rr_s * 1.1) + 6
    breaths_hz = rng.uniform(0.18, 0.32)
    phase = rng.uniform(0, 2 * np.pi)
    swing = np.sin(2 * np.pi * breaths_hz * rr_s * np.arange(count) + phase)
    intervals: Floats = rr_s * (1 + arrhythmia * swing + rng.normal(0, 0.004, count))
    return intervals


def fibrillation_intervals(rng: np.random.Generator, rr_s: float, shortest_s: float, duration_s: float) -> Floats:
    """Irregular RR intervals in s without any pattern, more long than short outliers, none under `shortest_s`.

    One interval from each slice of the distribution, shuffled, so that ten seconds are never regular by chance.
    """
    count = int(duration_s / rr_s * 1.2) + 8
    slices = (rng.permutation(count) + rng.uniform(0, 1, count)) / count
    intervals: Floats = np.maximum(shortest_s, rr_s * (0.66 + 0.81 * slices**1.4))
    return intervals


def timeline(rng: np.random.Generator, intervals: Floats) -> Timeline:
    """Beats at these intervals, the first one or two before the recording begins."""
    onsets = np.concatenate(([0.0], np.cumsum(intervals))) - intervals[0] * rng.uniform(1.05, 1.95)
    return Timeline(onsets, np.zeros(len(onsets), dtype=np.bool_))


def with_premature_beats(rng: np.random.Generator, beats: Timeline, earliest_s: float, duration_s: float) -> Timeline:
    """One to four beats made premature, each followed by a compensatory pause.

    Args:
        earliest_s: time from the QRS onset before, at the least; a premature beat comes after the T wave where it can.
        duration_s: length of the recording; premature beats keep clear of its edges.
    """
    intervals = np.diff(beats.onsets)
    rr_s = float(np.mean(intervals))
    inside = np.flatnonzero((beats.onsets > 1.2) & (beats.onsets < duration_s - 1.6))
    places = inside[int(rng.integers(0, 2)) :: 3]
    most = max(1, min(4, len(places), int(duration_s / rr_s) // 4))
    chosen = rng.choice(places, size=int(rng.integers(1, most + 1)), replace=False)
    for beat in chosen:
        coupling = min(max(rng.uniform(0.58, 0.70) * rr_s, earliest_s), 0.80 * rr_s)
        # The sinus node is not reset: the beat after the pause comes when it would have come anyway.
        pair = max(intervals[beat - 1] + intervals[beat], 1.9 * rr_s)
        intervals[beat - 1], intervals[beat] = coupling, pair - coupling
    onsets = beats.onsets[0] + np.concatenate(([0.0], np.cumsum(intervals)))
    premature = np.zeros(len(onsets), dtype=np.bool_)
    premature[chosen] = True
    return Timeline(onsets, premature)


def fibrillatory_waves(rng: np.random.Generator, seconds: Floats) -> Floats:
    """(3, samples) dipole in mV of fine f waves at 5 to 8 Hz that wax and wane, largest in V1."""
    rate_hz = rng.uniform(5.2, 7.8)
    turns = rate_hz * seconds + 0.25 * np.sin(2 * np.pi * (rng.uniform(0.15, 0.45) * seconds + rng.uniform(0, 1)))
    second = 1.31 * rate_hz * seconds + 0.4 * np.sin(2 * np.pi * (rng.uniform(0.3, 0.7) * seconds + rng.uniform(0, 1)))
    size = rng.uniform(0.025, 0.055)
    swell = 1 + 0.35 * np.sin(2 * np.pi * (rng.uniform(0.2, 0.6) * seconds + rng.uniform(0, 1)))
    wave = size * swell * (np.sin(2 * np.pi * turns) + 0.45 * np.sin(2 * np.pi * second))
    waves: Floats = np.outer([-0.25, 0.60, -0.90], wave)
    return waves
