"""Is a whole corpus what it says it is: its gain, and the order of its limb leads?

Two numbers for each record, cheap enough for every record of a build, and sentences on what a corpus shows that no corpus
in millivolts with its leads in order shows:

    amplitude   R wave along the heart's axis in the frontal plane, from leads I and II; about 1 mV in every adult corpus
    residual    how far the limb leads are from III = II - I, aVR = -(I + II)/2, aVL = I - II/2, aVF = II - I/2
                (Einthoven 1913, Goldberger 1942), which hold sample by sample whatever the heart does

findings(amplitudes, residuals, samples)     # [] or sentences, each with its likely cause
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from shards.record import INVALID, LEADS
from shards.signal import LIMB_LEADS, Floats

USUAL_R_MV = 1.0
"""Medians of the corpora in mV: 0.76 to 1.03, table in docs/data.md; CODE-15 as stored, 2 × mV: 1.67."""

LOWEST_R_MV, HIGHEST_R_MV = 0.62, 1.35
"""Medians outside are reported. Of 20 records drawn from a corpus in mV fewer than 1 in 100 medians lie outside."""

CAUSES = {
    2.0: "the values are probably 2 × mV, as in the TNMG family (CODE-15, SaMi-Trop)",
    0.5: "the values are probably half of what they should be: look at the gain of the corpus",
    1000.0: "the values are probably µV taken as mV",
    0.001: "the values are probably V taken as mV",
}
"""Factor of the amplitude → what explains it."""

CAUSE_FITS = 1.6
"""An explanation holds for amplitudes up to this factor away from its own."""

FEWEST_AMPLITUDES = 20
"""Records from which on something is said about the gain; the median of fewer varies too much."""

LARGEST_RESIDUAL = 0.15
"""Of a record with its limb leads in order; medians of the corpora are at most 0.011."""

FEWEST_RESIDUALS = 5
MOST_DISTURBED = 0.2
"""Fraction of the records that may have a larger residual: electrodes that come off make some in every corpus."""

SAMPLES_LOOKED_AT = 20
POINTS = 400
"""Samples of a record that its residual is taken from, at the least."""

LIMB = LEADS[:6]
Assignment = tuple[tuple[int, int], ...]
"""For each of the six rows the lead that it holds, and its sign."""

IDENTITIES: Floats = np.hstack((-LIMB_LEADS[2:], np.eye(4)))
"""(4, 6): what III, aVR, aVL and aVF are more than I and II make them, of the six limb leads."""

_APART = IDENTITIES.astype(np.float32)
_ROUNDING = 0.5 * np.abs(_APART)


@dataclass(frozen=True)
class LimbLeads:
    """Which limb leads the rows of a corpus are, as its signals say."""

    rows: tuple[str, ...]
    """The lead that each of the six rows holds, `-` before one that is upside down."""
    residual: float
    """Median of what then remains, of the size of the leads."""


def r_amplitude_mv(ecg: NDArray[np.int16], mv_per_lsb: Sequence[float], fs_hz: float) -> float | None:
    """R amplitude along the heart's axis: the largest frontal vector of each second, the median over the record.

    Leads I and II give the vector wherever it points, so an axis that turns the R wave out of lead II does not count.

    Args:
        ecg: (12, samples) counts.
        mv_per_lsb: scale of each lead.
        fs_hz: sampling rate.

    Returns:
        Millivolts; None where lead I or II is missing or flat, or no whole second is valid.
    """
    step = max(1, int(fs_hz) // 200)
    second = int(fs_hz) // step
    limb = np.ascontiguousarray(ecg[:2, ::step])
    seconds = limb.shape[1] // second if second else 0
    if seconds == 0:
        return None
    counts = limb[:, : seconds * second].reshape(2, seconds, second)
    low, high = counts.min(axis=2), counts.max(axis=2)
    valid = (low > INVALID).all(axis=0)
    if not valid.all():
        counts, low, high = counts[:, valid], low[:, valid], high[:, valid]
    if not (high > low).any(axis=1).all():
        return None
    one, two = _levelled(counts[0], mv_per_lsb[0]), _levelled(counts[1], mv_per_lsb[1])
    # The vector is (I, (2 II - I) / √3): Einthoven's triangle.
    squared = one * (one - two) + two * two
    return statistics.median(np.sqrt(4 / 3 * squared.max(axis=1)).tolist())


def limb_residual(ecg: NDArray[np.int16], mv_per_lsb: Sequence[float]) -> float | None:
    """Largest of the four mean distances from Einthoven's and Goldberger's identities, over the mean size of the limb leads.

    Offsets of the leads do not count, nor does what rounding to counts explains.

    Args:
        ecg: (12, samples) counts.
        mv_per_lsb: scale of each lead.

    Returns:
        0 where all hold, about 1 where one of the leads is another; None where a limb lead is missing or flat.
    """
    counts = np.ascontiguousarray(ecg[:6, :: max(1, ecg.shape[1] // POINTS)])
    low, high = counts.min(axis=1, initial=32767), counts.max(axis=1, initial=INVALID)
    if low.min() == INVALID:
        counts = counts[:, (counts != INVALID).all(axis=0)]
        low, high = counts.min(axis=1, initial=32767), counts.max(axis=1, initial=INVALID)
    if not (high > low).all():
        return None
    scale = np.array(mv_per_lsb[:6], dtype=np.float32)
    leads = _levelled(counts, scale[:, None])
    apart = np.abs(_APART @ leads).mean(axis=1) - _ROUNDING @ scale
    return max(float(apart.max()), 0.0) / float(np.abs(leads).mean())


def findings(
    r_amplitudes: Sequence[float | None], residuals: Sequence[float | None], samples: Iterable[Floats] = ()
) -> list[str]:
    """A sentence for each thing that a corpus in millivolts with its leads in order would not show.

    Args:
        r_amplitudes: `r_amplitude_mv` of its records.
        residuals: `limb_residual` of its records.
        samples: (12, samples) millivolts of some records, to find out which leads were taken for which; taken only where
            the residuals ask for it.
    """
    known = np.array([value for value in residuals if value is not None])
    high = int(np.count_nonzero(known > LARGEST_RESIDUAL))
    if len(known) < FEWEST_RESIDUALS or high <= MOST_DISTURBED * len(known):
        return _gain_finding(r_amplitudes)
    found = limb_leads([sample for sample in samples if _is_out_of_order(sample)][:SAMPLES_LOOKED_AT])
    # The amplitude is that of leads I and II: where these are not what their names say, it means nothing.
    gain = _gain_finding(r_amplitudes) if found and set(found.rows[:2]) == {"I", "II"} else []
    return [*gain, _limb_finding(high, len(known), found)]


def limb_leads(samples: Sequence[Floats]) -> LimbLeads | None:
    """The assignment of the rows I, II, III, aVR, aVL, aVF to leads that fits some records, with the fewest rows changed.

    Limb leads are exchanged with limb leads and augmented with augmented ones, each upright or upside down. Electrodes that
    are exchanged on the patient leave the identities as they are and cannot be found here.

    Args:
        samples: (12, samples) millivolts, or (6, samples) of the limb leads alone, NaN where not valid.

    Returns:
        What the rows hold, with the residual that remains; None where nothing fits, or no record has all six.
    """
    assignments = _assignments()
    coefficients = np.stack([_coefficients(assignment) for assignment in assignments])
    known = (covariance for covariance in map(_covariance, samples) if covariance is not None)
    residuals = [_residuals(covariance, coefficients) for covariance in known]
    if not residuals:
        return None
    median = np.median(residuals, axis=0)
    fits = np.flatnonzero(median < LARGEST_RESIDUAL)
    if len(fits) == 0:
        return None
    best = min(fits, key=lambda number: (*_changes(assignments[number]), median[number]))
    rows = tuple(f"{'-' if sign < 0 else ''}{LIMB[lead]}" for lead, sign in assignments[best])
    return LimbLeads(rows, float(median[best]))


def _levelled(counts: NDArray[np.int16], scale: float | NDArray[np.float32]) -> NDArray[np.float32]:
    """Counts in millivolts, less the mean of each row."""
    leads = counts * np.float32(scale)
    leads -= leads.mean(axis=-1, keepdims=True)
    return leads


def _gain_finding(r_amplitudes: Sequence[float | None]) -> list[str]:
    known = [value for value in r_amplitudes if value is not None]
    if len(known) < FEWEST_AMPLITUDES:
        return []
    median = float(np.median(known))
    if LOWEST_R_MV <= median <= HIGHEST_R_MV:
        return []
    factor = max(median / USUAL_R_MV, 1e-12)
    causes = (cause for near, cause in CAUSES.items() if 1 / CAUSE_FITS <= factor / near <= CAUSE_FITS)
    cause = next(causes, f"the gain is probably wrong by a factor of about {factor:.2g}")
    return [
        f"R amplitude: {median:.3g} mV in the median of {len(known)} records, where about {USUAL_R_MV:g} mV is usual; {cause}"
    ]


def _limb_finding(high: int, records: int, found: LimbLeads | None) -> str:
    return (
        f"limb leads: in {high} of {records} records they are further from III = II - I, aVR = -(I + II)/2, aVL = I - II/2 "
        f"and aVF = II - I/2 than {LARGEST_RESIDUAL:.0%} of their size; {_cause(found)}"
    )


def _cause(found: LimbLeads | None) -> str:
    changed = [] if found is None else [(name, row) for name, row in zip(LIMB, found.rows, strict=True) if name != row]
    if not changed:
        return "the leads were probably recorded at different gains, or not at the same time"
    names, rows = zip(*changed, strict=True)
    if len(changed) == 1:
        return f"the row named {names[0]} looks like {rows[0]}"
    return f"the rows named {', '.join(names)} look like {', '.join(rows)}"


def _is_out_of_order(sample: Floats) -> bool:
    covariance = _covariance(sample)
    return covariance is not None and bool(_residuals(covariance, IDENTITIES[None])[0] > LARGEST_RESIDUAL)


def _covariance(sample: Floats) -> Floats | None:
    """(6, 6) of the limb leads where all are valid; None where one is missing or flat."""
    limb = sample[:6]
    limb = limb[:, np.isfinite(limb).all(axis=0)]
    if limb.shape[1] < 2 or not (limb.max(axis=1) > limb.min(axis=1)).all():
        return None
    covariance: Floats = np.cov(limb)
    return covariance


def _residuals(covariance: Floats, coefficients: Floats) -> Floats:
    """(assignments,) largest of the four RMS distances from the identities, over the RMS size of the limb leads."""
    apart = np.einsum("aij,aij->ai", coefficients @ covariance, coefficients).max(axis=1)
    residuals: Floats = np.sqrt(np.maximum(apart, 0) / (np.trace(covariance) / 6))
    return residuals


def _changes(assignment: Assignment) -> tuple[int, int]:
    """How many rows hold another lead than their name says or an upside-down one, and how many are upside down."""
    changed = sum((lead, sign) != (row, 1) for row, (lead, sign) in enumerate(assignment))
    return changed, sum(sign < 0 for _, sign in assignment)


def _coefficients(assignment: Assignment) -> Floats:
    """(4, 6): the identities in terms of the rows, where row r holds a lead with a sign."""
    coefficients = np.zeros_like(IDENTITIES)
    for row, (lead, sign) in enumerate(assignment):
        coefficients[:, row] = sign * IDENTITIES[:, lead]
    return coefficients


def _assignments() -> list[Assignment]:
    """The 2304 ways in which six rows hold the six limb leads."""
    orders = product(permutations((0, 1, 2)), permutations((3, 4, 5)), product((1, -1), repeat=6))
    return [tuple(zip((*limb, *augmented), signs, strict=True)) for limb, augmented, signs in orders]
