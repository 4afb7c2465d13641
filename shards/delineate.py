"""Intervals of an ECG by their clinical definitions, measured on the beat that all twelve leads show together.

neurokit2 finds the R waves. The median of the beats around them rids a record of noise, wander and premature beats, and
the speed at which its twelve leads move together shows where each wave begins and ends, as for a reader who takes the
earliest onset and the latest end in any lead (AHA/ACCF/HRS 2009, J Am Coll Cardiol 53:976-981):

    PR    onset of P to onset of QRS             QT    onset of QRS to end of T
    QRS   onset to end of QRS                    QTc   QT / sqrt(RR in s), Bazett 1920

The fractions below were set on simulated records, whose intervals are exact, and on the machine measurements of sixty
records of MIMIC-IV-ECG; docs/data.md has the errors, next to those of neurokit2's own wavelet delineation.
"""

from __future__ import annotations

import math
import warnings
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.signal import Floats, bridge_gaps, resample

RATE_HZ = 500
BEFORE, AFTER = 225, 325
"""Samples of a beat on either side of its R wave: 0.45 s and 0.65 s."""

FEWEST_BEATS = 3
MOST_INVALID = 0.1
"""Of a lead that is measured on."""

QRS_FRACTION, P_FRACTION, T_FRACTION = 0.04, 0.40, 0.20
"""A wave lasts while the leads move faster than this fraction of the fastest they move in it."""

LIKENESS = 0.6
"""Correlation of a wave of one beat with that of the others from which on it is the same wave."""

LOBE, RISE = 0.35, 0.5
"""A movement belongs to a QRS complex, or to the rise of a P wave, from this fraction of the fastest on."""

SMOOTH: Floats = np.hanning(33)[1:-1] / np.hanning(33).sum()
"""60 ms, so that the deflections of one QRS complex are one peak."""

POSSIBLE_MS = {"pr": (80, 400), "qrs": (40, 250), "qt": (200, 700)}


def measure(mv: Floats, fs_hz: float) -> dict[str, Any]:
    """Intervals of one record.

    Args:
        mv: (12, samples) millivolts, in any order, NaN where not valid.
        fs_hz: sampling rate.

    Returns:
        `rr`, `pr`, `qrs`, `qt`, `qtc` in ms and `heart_rate` in 1/min, each None where it cannot be measured (PR where no
        P wave keeps its place before the QRS, as in atrial fibrillation), `qtc_formula` and `source`; empty where no
        heartbeat is found that repeats itself. The same signal always gives the same values; nothing is raised.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return _measure(mv, fs_hz)
        except Exception:  # neurokit2 and scipy raise whatever they meet in a signal that is no ECG
            return {}


def _measure(mv: Floats, fs_hz: float) -> dict[str, Any]:
    usable = (np.isnan(mv).mean(axis=1) <= MOST_INVALID) & (np.nanmax(mv, axis=1) > np.nanmin(mv, axis=1))
    leads = bridge_gaps(resample(mv[usable], fs_hz, RATE_HZ))
    peaks = _r_waves(leads)
    rr = float(np.median(np.diff(peaks)))
    whole = [peak for peak in peaks if peak >= BEFORE and peak + AFTER <= leads.shape[1]]
    if len(whole) < FEWEST_BEATS:
        return {}
    beats = np.stack([leads[:, peak - BEFORE : peak + AFTER] for peak in whole])
    if not _keeps_its_place(beats[:, :, BEFORE - 60 : BEFORE + 70]):
        return {}
    found = {name: _possible(name, value) for name, value in _intervals(beats, rr).items()}
    if found["qrs"] is None:
        found = dict.fromkeys(POSSIBLE_MS)
    rr_ms = rr * 1000 / RATE_HZ
    qtc = None if found["qt"] is None else round(found["qt"] / math.sqrt(rr_ms / 1000), 1)
    return {
        "rr": round(rr_ms, 1),
        "heart_rate": round(60_000 / rr_ms, 1),
        **found,
        "qtc": qtc,
        "qtc_formula": "Bazett",
        "source": f"median beat of {len(leads)} leads, R waves by {_neurokit()}",
    }


@cache
def _neurokit() -> str:
    return f"neurokit2 {version('neurokit2')}"


def _r_waves(leads: Floats) -> NDArray[np.int64]:
    """Samples of the R waves of (leads, samples): found where the leads move together, whatever the heart's axis."""
    import neurokit2  # takes seconds, and most builds measure nothing

    speed = np.convolve(_speed(leads, 2), SMOOTH, "same")
    found = neurokit2.ecg_findpeaks(speed, sampling_rate=RATE_HZ)["ECG_R_Peaks"]
    # A T wave taken for an R wave is slow.
    return _on_the_peak(leads, found[speed[found] > LOBE * np.percentile(speed[found], 75)])


def _on_the_peak(leads: Floats, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same beats, each at the peak of the lead whose QRS is the tallest."""
    places = places[(places >= 40) & (places + 40 < leads.shape[1])]
    beats = leads[:, places[:, None] + np.arange(-40, 41)]
    beat = np.median(beats, axis=1)
    beat -= np.median(beat, axis=1, keepdims=True)
    lead, top = np.unravel_index(np.argmax(np.abs(beat)), beat.shape)
    first = max(0, int(top) - 15)
    peaks: NDArray[np.int64] = np.argmax(np.sign(beat[lead, top]) * beats[lead, :, first : top + 16], axis=1)
    return places - 40 + first + peaks


def _possible(name: str, samples: float | None) -> float | None:
    """An interval in ms, or None where no heart has such a one."""
    shortest, longest = POSSIBLE_MS[name]
    milliseconds = None if samples is None else samples * 1000 / RATE_HZ
    return milliseconds if milliseconds is not None and shortest <= milliseconds <= longest else None


def _intervals(beats: Floats, rr: float) -> dict[str, float | None]:
    """PR, QRS and QT in samples of (beats, leads, samples); None where a wave is not found."""
    beat = np.median(beats, axis=0)
    qrs = _qrs(beat)
    if qrs is None:
        return dict.fromkeys(POSSIBLE_MS)
    onset, end = qrs
    t_end = _t_end(beat, onset, end, rr)
    p_onset = _p_onset(beat, onset, 0 if t_end is None else round(t_end - rr))
    if p_onset is not None and not _keeps_its_place(beats[:, :, max(0, p_onset - 10) : onset]):
        p_onset = None
    return {
        "pr": None if p_onset is None else onset - p_onset,
        "qrs": end - onset,
        "qt": None if t_end is None else t_end - onset,
    }


def _qrs(beat: Floats) -> tuple[int, int] | None:
    """First and last sample of the QRS complex of a (leads, samples) beat."""
    speed = _speed(beat, 2)
    start, stop = BEFORE - 60, BEFORE + 70
    fastest = float(speed[start:stop].max())
    # The leads may rest together for a moment within a wide complex.
    fast = start + np.flatnonzero(speed[start:stop] > LOBE * fastest)
    slow = max(QRS_FRACTION * fastest, 3 * float(np.percentile(speed, 20)))
    onset, end = _rest_before(speed, int(fast[0]), 0, slow, 6), _rest_after(speed, int(fast[-1]), len(speed), slow, 6)
    return None if onset is None or end is None else (onset, end)


def _t_end(beat: Floats, onset: int, end: int, rr: float) -> int | None:
    """End of T: where the leads come to rest after they fell from its top, before the next P wave."""
    speed = _speed(beat, 10)
    level = beat[:, max(0, onset - 8) : onset + 1].mean(axis=1, keepdims=True)
    height = np.sqrt(np.square(beat - level).sum(axis=0))
    # At high rates the next P wave comes later in the cycle.
    last_top = onset + (0.85 if rr < 0.7 * RATE_HZ else 0.75) * rr
    first, last = end + 30, min(len(speed) - 10, end + 225, int(last_top))
    if last - first <= 20:
        return None
    top = first + int(np.argmax(height[first:last]))
    falls = speed[top : min(len(speed) - 10, top + 100, onset + int(0.9 * rr))]
    if len(falls) <= 10:
        return None
    steepest = top + int(np.argmax(falls))
    slow = max(T_FRACTION * speed[steepest], 2 * float(np.percentile(speed, 5)))
    return _rest_after(speed, steepest, len(speed) - 10, slow, 2)


def _p_onset(beat: Floats, onset: int, t_end_before: int) -> int | None:
    """Onset of P: where the leads begin to move after the T wave before it."""
    speed = _speed(beat, 8)
    first, last = max(8, onset - 170, t_end_before + 5), onset - 10
    if last - first <= 20:
        return None
    fastest = first + int(np.argmax(speed[first:last]))
    # P rises and falls, and the rise may be the slower of the two.
    earliest = max(first, fastest - 55)
    rise = earliest + int(np.argmax(speed[earliest : fastest + 1] > RISE * speed[fastest]))
    slow = max(P_FRACTION * speed[fastest], 1.2 * float(np.percentile(speed, 5)))
    return _rest_before(speed, rise, first, slow, 4)


def _keeps_its_place(segments: Floats) -> bool:
    """Whether at least half of the segments, (beats, leads, samples), look like the mean of the others."""
    ramp = np.linspace(0, 1, segments.shape[2])
    level = segments - segments[:, :, :1] - ramp * (segments[:, :, -1:] - segments[:, :, :1])
    level = level - level.mean(axis=2, keepdims=True)
    others = (level.sum(axis=0) - level) / (len(level) - 1)
    size = np.sqrt(np.square(level).sum(axis=(1, 2)) * np.square(others).sum(axis=(1, 2)))
    likeness = (level * others).sum(axis=(1, 2)) / np.maximum(size, 1e-12)
    return bool(np.mean(likeness > LIKENESS) >= 0.5)


def _speed(beat: Floats, half: int) -> Floats:
    """(samples,) how fast the leads move together, mV a sample, from differences over twice `half` samples; 0 at the ends."""
    speed = np.zeros(beat.shape[1])
    speed[half:-half] = np.sqrt(np.square(beat[:, 2 * half :] - beat[:, : -2 * half]).sum(axis=0)) / (2 * half)
    return speed


def _rest_after(speed: Floats, start: int, stop: int, slow: float, hold: int) -> int | None:
    """The first sample from `start` on after which the speed stays below `slow` for `hold` samples."""
    at_rest = np.convolve(speed[start:stop] < slow, np.ones(hold), "valid") >= hold - 0.5
    return start + int(np.argmax(at_rest)) if at_rest.any() else None


def _rest_before(speed: Floats, start: int, stop: int, slow: float, hold: int) -> int | None:
    """The same backwards from `start`, down to `stop`."""
    last = len(speed) - 1
    found = _rest_after(speed[::-1], last - start, last - stop + 1, slow, hold)
    return None if found is None else last - found
