"""Intervals by the bootstrap over patients: records of one patient are alike, so whole patients are drawn again.

Percentile intervals of a cluster bootstrap (Efron and Tibshirani, 1993, chapters 6 and 13). The same patients and seed give
the same resamples, so figures of two systems are compared on the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95

Rows = NDArray[np.int64]


class Interval(NamedTuple):
    """Ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """A figure with its interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """`value`, `low` and `high`."""
        return asdict(self)

    def above(self, other: Measured) -> bool:
        """Whether its interval lies above another's, apart from it."""
        return self.low > other.high


def patient_bootstrap(
    statistic: Callable[[Rows], float],
    patients: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Percentile interval of a statistic of records.

    Args:
        statistic: of a multiset of row numbers.
        patients: (rows,) the patient of each row.
        resamples: how often as many patients as there are are drawn, with replacement.
        seed: of the draws.
        level: share of the resamples inside the interval.

    Raises:
        ValueError: there are no rows, or no resamples.
    """
    return interval([statistic(rows) for rows in patient_resamples(patients, resamples, seed)], level)


def patient_resamples(patients: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Rows]:
    """Row numbers of each resample: all rows of each drawn patient, as often as it is drawn.

    Raises:
        ValueError: there are no rows.
    """
    number, counts = _numbered(patients)
    by_patient = np.argsort(number, kind="stable")
    starts = np.cumsum(counts) - counts
    for drawn in _draws(len(counts), resamples, seed):
        sizes = counts[drawn]
        # Place in `by_patient`: where the patient's rows start, plus 0, 1, … within the patient.
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        yield by_patient[np.repeat(starts[drawn], sizes) + within]


def measured_mean(
    values: Sequence[float] | NDArray[Any],
    patients: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Measured:
    """Mean of a value of each row, such as right (1) or wrong (0), with its interval.

    The same interval as that of `patient_bootstrap`, at the cost of a sum over patients for each resample.

    Args:
        values: (rows,)
        patients: (rows,) the patient of each row.
        resamples: as in `patient_bootstrap`, like `seed` and `level`.
        seed: see there.
        level: see there.

    Raises:
        ValueError: there are no rows, no resamples, or not as many patients as values.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) != len(patients):
        raise ValueError(f"expected the patient of each value, found {len(patients)} for {len(numbers)} values")
    number, counts = _numbered(patients)
    sums = np.bincount(number, weights=numbers)
    means = [float(sums[drawn].sum() / counts[drawn].sum()) for drawn in _draws(len(counts), resamples, seed)]
    return Measured(float(numbers.mean()), *interval(means, level))


def paired_difference(
    ours: Sequence[float] | NDArray[Any],
    theirs: Sequence[float] | NDArray[Any],
    patients: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Measured:
    """Mean of `ours` less `theirs`, row by row, with its interval; see `measured_mean`."""
    difference = np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)
    return measured_mean(difference, patients, resamples, seed, level)


def interval(resampled: Sequence[float], level: float = LEVEL) -> Interval:
    """The middle `level` of what the resamples gave.

    Raises:
        ValueError: there are none.
    """
    if not len(resampled):
        raise ValueError("expected at least one resample, found none; ask for more")
    low, high = np.quantile(np.asarray(resampled, np.float64), ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(low), float(high))


def _numbered(patients: Sequence[str]) -> tuple[Rows, Rows]:
    """(rows,) number of each row's patient, and (patients,) how many rows each has."""
    if not len(patients):
        raise ValueError("expected at least one record of a patient, found none")
    _, number, counts = np.unique(np.asarray(patients, dtype=str), return_inverse=True, return_counts=True)
    return number.astype(np.int64), counts.astype(np.int64)


def _draws(patients: int, resamples: int, seed: int) -> Iterator[Rows]:
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.integers(0, patients, size=patients)
