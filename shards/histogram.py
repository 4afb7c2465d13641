"""How what a data set holds is distributed, from its index alone: bins, quality, labels.

A few records with a wrong gain must not press all others into one bin. The bins of a distribution therefore cover its 0.5 to
99.5 percentile, and its extremes too where these are near; what lies beyond is counted in `below` and `above`. Edges are
round numbers, a bin holds its lower edge.

    overview(data.index, data.kind, most_bins=40)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.plan import Kind
from shards.plausibility import LARGEST_RESIDUAL
from shards.record import LEADS, SPLITS

Floats = NDArray[np.float64]

TRIMMED = 0.005
"""Fraction of the values at each end that may be left to `below` and `above`; at least one value …"""

FEWEST_TRIMMED = 20
"""… of so many or more."""

NEAR = 0.5
"""An extreme within this part of the trimmed range from its end is near: bins reach to it."""

FEWEST_BINS, FARTHEST = 24, 1e300

FEW_VALUES = 8
"""Sampling rates and lengths are told one by one up to this number of different ones."""

SKEWED = 30
"""Counts are better drawn on a logarithmic scale where the largest is so many times the middle one."""

LEAST_SKEWED = 100
"""… and it is at least this."""

INVALID_ROUNDING = 6.1e-6
"""Twelve times what rounding to six decimals takes from or adds to an `invalid_fraction`, and a hair."""


@dataclass(frozen=True)
class Quantity:
    """Something that every sample of a kind has one of."""

    name: str
    unit: str
    column: str
    """Of the index, that it is read or reckoned from."""
    of: Callable[[pa.Table], Floats] = field(repr=False)
    """Index → (rows,) values in the unit, NaN where a sample has none."""
    none: str = "unknown"
    """What is said of samples that have none."""
    few: int = 1
    """Up to so many different values are counted one by one."""
    whole: bool = False
    """Whether it is counted in whole numbers."""


@dataclass(frozen=True)
class Distribution:
    """How often which values occur: counts of each of a few values, or of bins between edges."""

    missing: int
    """Null, NaN or infinite."""
    least: float = math.nan
    median: float = math.nan
    greatest: float = math.nan
    values: tuple[float, ...] = ()
    """The different values, rising, where they are few; empty where there are bins."""
    edges: tuple[float, ...] = ()
    """One more than bins, rising."""
    counts: tuple[int, ...] = ()
    """Of each value, or of each bin."""
    below: int = 0
    """Values less than the first edge."""
    above: int = 0
    """Values equal to the last edge or greater."""

    @property
    def known(self) -> int:
        """How many values there are."""
        return self.below + sum(self.counts) + self.above

    @property
    def is_skewed(self) -> bool:
        """Whether bars of a linear height would show the largest count alone."""
        counts = sorted(count for count in (self.below, *self.counts, self.above) if count)
        return bool(counts) and counts[-1] >= max(LEAST_SKEWED, SKEWED * counts[len(counts) // 2])


@dataclass(frozen=True)
class Quality:
    """Records in which something is visibly wrong."""

    missing_leads: int
    flat_leads: int
    invalid_samples: int
    """In leads that are not missing as a whole."""
    limb_leads: int
    """Limb residual above `shards.plausibility.LARGEST_RESIDUAL`."""
    with_limb_leads: int
    """Records of which the limb residual is known."""


@dataclass(frozen=True)
class LabelCount:
    """How many records have a finding, or how many conversations ask for something."""

    name: str
    present: int
    splits: tuple[int, ...]
    """`present` in each of `SPLITS`."""
    unknown: int


@dataclass(frozen=True)
class Overview:
    """All that is drawn of a data set."""

    kind: Kind
    total: int
    """Records, or conversations."""
    distributions: tuple[tuple[Quantity, Distribution], ...]
    labels: tuple[LabelCount, ...]
    quality: Quality | None
    """None of conversations: their index does not say."""


def _column(name: str) -> Callable[[pa.Table], Floats]:
    def read(index: pa.Table) -> Floats:
        return np.asarray(pc.cast(index[name], pa.float64()).to_numpy(), dtype=np.float64)

    return read


def _length_s(index: pa.Table) -> Floats:
    samples, fs_hz = _column("samples")(index), _column("fs_hz")(index)
    return np.divide(samples, fs_hz, out=np.full_like(samples, np.nan), where=fs_hz > 0)


def _text_length(index: pa.Table) -> Floats:
    length = _column("text_length")(index)
    return np.where(length > 0, length, np.nan)


_TEXT = Quantity("text length", "characters", "text_length", _text_length, none="without text", whole=True)

QUANTITIES: dict[Kind, tuple[Quantity, ...]] = {
    "ecg": (
        Quantity("R amplitude", "mV", "r_amplitude_mv", _column("r_amplitude_mv")),
        Quantity("peak amplitude", "mV", "peak_mv", _column("peak_mv")),
        Quantity("sampling rate", "Hz", "fs_hz", _column("fs_hz"), few=FEW_VALUES),
        Quantity("length", "s", "samples / fs_hz", _length_s, few=FEW_VALUES),
        _TEXT,
    ),
    "conversation": (_TEXT,),
}
"""Kind of data set → what of its samples is drawn."""


def overview(index: pa.Table, kind: Kind, most_bins: int) -> Overview:
    """Distributions, labels and quality of an index of `shards.dataset.INDEX_SCHEMA`; a million rows take a second."""
    found = [
        (quantity, distribute(quantity.of(index), most_bins, few=quantity.few, whole=quantity.whole))
        for quantity in QUANTITIES[kind]
    ]
    of_signals = count_quality(index) if kind == "ecg" else None
    return Overview(kind, index.num_rows, tuple(found), tuple(count_labels(index)), of_signals)


def distribute(values: Floats, most_bins: int, *, few: int = 1, whole: bool = False) -> Distribution:
    """Count values one by one where few of them are different, else in bins of equal width between round edges.

    Args:
        values: (rows,), NaN and infinity where a row has none.
        most_bins: at least 2; fewer are taken of few values (twice the cube root of their number, Rice's rule).
        few: up to so many different values are counted one by one.
        whole: bins are no narrower than 1.
    """
    ordered = np.sort(values[np.isfinite(values)])
    missing = len(values) - len(ordered)
    if not len(ordered):
        return Distribution(missing)
    summary = (missing, float(ordered[0]), float(np.median(ordered)), float(ordered[-1]))
    starts = np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0)
    if len(starts) <= max(few, 1):
        counts = np.diff(starts, append=len(ordered))
        return Distribution(*summary, values=tuple(ordered[starts].tolist()), counts=tuple(counts.tolist()))
    most = min(most_bins, max(FEWEST_BINS, math.ceil(2 * len(ordered) ** (1 / 3))))
    edges = _round_edges(*_range(ordered), most, whole)
    places = np.searchsorted(ordered, edges).tolist()
    counts = np.diff(places)
    return Distribution(*summary, edges=edges, counts=tuple(counts.tolist()), below=places[0], above=len(ordered) - places[-1])


def count_quality(index: pa.Table) -> Quality:
    """Records with something visibly wrong, each kind counted on its own."""
    missing, invalid = _column("missing_leads")(index), _column("invalid_fraction")(index)
    residual = _column("limb_residual")(index)
    return Quality(
        missing_leads=int(np.count_nonzero(missing > 0)),
        flat_leads=int(np.count_nonzero(_column("flat_leads")(index) > 0)),
        invalid_samples=int(np.count_nonzero(invalid * len(LEADS) > missing + INVALID_ROUNDING)),
        limb_leads=int(np.count_nonzero(residual > LARGEST_RESIDUAL)),
        with_limb_leads=int(np.count_nonzero(np.isfinite(residual))),
    )


def count_labels(index: pa.Table) -> list[LabelCount]:
    """Every label that is present or unknown somewhere, the most frequent first, then by name."""
    split = index["split"]
    present = [_occurrences(index["labels"].filter(pc.equal(split, name))) for name in SPLITS]
    unknown = _occurrences(index["unknown_labels"])
    names = set(unknown).union(*present)
    found = [_label(name, [counts.get(name, 0) for counts in present], unknown.get(name, 0)) for name in names]
    return sorted(found, key=lambda label: (-label.present, -label.unknown, label.name))


def _label(name: str, splits: Sequence[int], unknown: int) -> LabelCount:
    return LabelCount(name, sum(splits), tuple(splits), unknown)


def _occurrences(lists: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(pc.list_flatten(lists)).to_pylist()}


def _range(ordered: Floats) -> tuple[float, float]:
    """What the bins have to cover of rising values."""
    cut = math.ceil(TRIMMED * len(ordered)) if len(ordered) >= FEWEST_TRIMMED else 0
    least, low, high, greatest = np.clip(ordered[[0, cut, -1 - cut, -1]], -FARTHEST, FARTHEST).tolist()
    reach = NEAR * (high - low)
    if reach == 0:
        return least, greatest
    return (least if least >= low - reach else low), (greatest if greatest <= high + reach else high)


def _round_edges(low: float, high: float, most: int, whole: bool) -> tuple[float, ...]:
    """Multiples of the smallest 1, 2 or 5 times a power of ten that cover a range with as many bins as allowed.

    No narrower than a billionth of the values: closer than that, floats have no round numbers.
    """
    finest = max((high - low) / most, 1e-9 * max(abs(low), abs(high)), 1 / FARTHEST, float(whole))
    power = math.floor(math.log10(finest))
    while True:
        for digit in (1, 2, 5):
            first, last = (math.floor(end / _edge(digit, power)) for end in (low, high))
            first -= _edge(first * digit, power) > low
            last += _edge((last + 1) * digit, power) <= high
            if last - first < most and _edge(digit, power) >= finest:
                return tuple(_edge(place * digit, power) for place in range(first, last + 2))
        power += 1


def _edge(number: int, power: int) -> float:
    """number x 10^power, the float that is nearest to it."""
    return float(number * 10**power) if power >= 0 else number / 10**-power
