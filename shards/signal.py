"""Optional steps on the signal of a record: derived leads, baseline, mains, sampling rate. None is taken unless asked for.

The filters and the resampling are those that the CODE family's tools apply (antonior92/ecg-preprocessing, MIT licence), so
that a corpus can be brought to what models of that family were trained on. Every function here is pure: (12, samples)
millivolts in float64 go in and come out, NaN where a sample is not valid.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from shards.record import RecordError

Floats = NDArray[np.float64]

LARGEST_FACTOR = 1000
"""Of the ratio of two sampling rates in lowest terms; the filter of a resampling is twenty times as long."""

MOST_NEW_SAMPLES = 40
"""Made of each old one: 25 Hz to 1000 Hz."""

PASS_HZ, STOP_HZ = 0.8, 0.2
PASS_RIPPLE_DB, STOP_DB = 0.5, 40.0
"""The high-pass of ecg-preprocessing."""

NOTCH_QUALITY = 30.0

LIMB_LEADS: Floats = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [-0.5, -0.5], [1.0, -0.5], [-0.5, 1.0]])
"""(6, 2): leads I, II, III, aVR, aVL, aVF of the leads I and II (Einthoven 1913, Goldberger 1942)."""


def derive_leads(mv: Floats) -> Floats:
    """Fill the limb leads that are missing from two that are there, which determine all six.

    Args:
        mv: (12, samples) millivolts; a lead is missing where it is NaN throughout.

    Returns:
        (12, samples); leads that are there are as they were, and chest leads are never invented.
    """
    missing = np.isnan(mv[:6]).all(axis=1)
    there = np.flatnonzero(~missing)
    if len(there) < 2 or not missing.any():
        return mv
    given = there[:2]
    filled = mv.copy()
    filled[:6][missing] = LIMB_LEADS[missing] @ np.linalg.inv(LIMB_LEADS[given]) @ mv[given]
    return filled


def remove_baseline(mv: Floats, fs_hz: float) -> Floats:
    """Take out what is slower than a heartbeat: elliptic high-pass at 0.8 Hz, forwards and backwards, so without delay.

    Args:
        mv: (12, samples) millivolts.
        fs_hz: sampling rate.

    Raises:
        RecordError: the record is too short, or is sampled too slowly.
    """
    if fs_hz <= 2 * PASS_HZ:
        raise RecordError(f"--remove-baseline: expected more than {2 * PASS_HZ:g} Hz, found {fs_hz:g} Hz; leave the record out")
    import scipy.signal  # half a second, and most builds take no step

    sections = baseline_filter(fs_hz)
    _check_length(mv, 6 * len(sections) + 3, "--remove-baseline")
    return _through_gaps(mv, lambda filled: scipy.signal.sosfiltfilt(sections, filled, axis=1, padtype="constant"))


def remove_powerline(mv: Floats, fs_hz: float, frequency_hz: float) -> Floats:
    """Take out the mains' hum, its fundamental alone: notch of quality 30, forwards and backwards.

    Args:
        mv: (12, samples) millivolts.
        fs_hz: sampling rate.
        frequency_hz: of the mains.

    Raises:
        RecordError: the record is sampled too slowly to hold that frequency, or is too short.
    """
    import scipy.signal

    if frequency_hz >= fs_hz / 2:
        raise RecordError(
            f"--powerline {frequency_hz:g}: at {fs_hz:g} Hz a record holds only what is below {fs_hz / 2:g} Hz; leave it away"
        )
    numerator, denominator = scipy.signal.iirnotch(frequency_hz, NOTCH_QUALITY, fs_hz)
    _check_length(mv, 3 * len(numerator) + 1, "--powerline")
    return _through_gaps(mv, lambda filled: scipy.signal.filtfilt(numerator, denominator, filled, axis=1))


def resample(mv: Floats, fs_hz: float, target_hz: float) -> Floats:
    """Bring a signal to another sampling rate by a polyphase filter; sample 0 stays at time 0.

    Args:
        mv: (12, samples) millivolts.
        fs_hz: its sampling rate.
        target_hz: the wanted rate.

    Returns:
        (12, ceil(samples · target / rate)); a sample is NaN where its instant lies in a gap or next to one.

    Raises:
        RecordError: the ratio of the two rates has no small terms, or is too large.
    """
    import scipy.signal

    ratio = _ratio(fs_hz, target_hz)
    if ratio == 1 or mv.shape[1] == 0:
        return mv
    up, down = ratio.numerator, ratio.denominator
    # Cut out of PTB-XL, 500 to 400 Hz: the worst error in 20 ms at an edge is 1 µV with "line", 16 µV with zeros beyond it.
    resampled: Floats = scipy.signal.resample_poly(bridge_gaps(mv), up, down, axis=1, padtype="line")
    gaps = np.isnan(mv)
    if gaps.any():
        steps = np.arange(resampled.shape[1]) * down
        before, after = steps // up, np.minimum(-(-steps // up), mv.shape[1] - 1)
        resampled[gaps[:, before] | gaps[:, after]] = np.nan
    return resampled


@cache
def baseline_filter(fs_hz: float) -> Floats:
    """(sections, 6) second-order sections of the high-pass at a sampling rate."""
    import scipy.signal

    order, cutoff = scipy.signal.ellipord(PASS_HZ, STOP_HZ, PASS_RIPPLE_DB, STOP_DB, fs=fs_hz)
    sections: Floats = scipy.signal.ellip(order, PASS_RIPPLE_DB, STOP_DB, cutoff, "highpass", fs=fs_hz, output="sos")
    return sections


def _ratio(fs_hz: float, target_hz: float) -> Fraction:
    ratio = Fraction(target_hz) / Fraction(fs_hz)
    if ratio > MOST_NEW_SAMPLES:
        raise RecordError(
            f"--rate {target_hz:g}: from {fs_hz:g} Hz it would make {float(ratio):.0f} samples of each, expected at most "
            f"{MOST_NEW_SAMPLES}; leave the record out"
        )
    near = ratio.limit_denominator(LARGEST_FACTOR)
    # A millionth is 10 µs in a record of 10 s.
    if near.numerator > LARGEST_FACTOR or near == 0 or abs(near / ratio - 1) > Fraction(1, 1_000_000):
        raise RecordError(
            f"--rate {target_hz:g}: {fs_hz!r} Hz and {target_hz!r} Hz are not in a ratio of numbers up to {LARGEST_FACTOR}; "
            "choose a rate that is"
        )
    return near


def _check_length(mv: Floats, shortest: int, flag: str) -> None:
    if mv.shape[1] < shortest:
        raise RecordError(f"{flag}: expected at least {shortest} samples to filter, found {mv.shape[1]}; leave the record out")


def _through_gaps(mv: Floats, step: Callable[[Floats], Floats]) -> Floats:
    """Apply a step to a signal whose gaps are bridged, and mark them again."""
    changed = step(bridge_gaps(mv))
    changed[np.isnan(mv)] = np.nan
    return changed


def bridge_gaps(mv: Floats) -> Floats:
    """Draw straight lines over NaN, each lead by itself; a lead without any valid sample becomes 0."""
    gaps = np.isnan(mv)
    if not gaps.any():
        return mv
    bridged = mv.copy()
    places = np.arange(mv.shape[1])
    for lead, gap in zip(bridged, gaps, strict=True):
        lead[gap] = np.interp(places[gap], places[~gap], lead[~gap]) if not gap.all() else 0.0
    return bridged
