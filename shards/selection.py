"""Which samples of a split are read: by source, label, quality and text, as the index knows them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class FilterError(ValueError):
    """A filter that cannot be meant, or leaves nothing: one sentence."""


LIMITS = {
    "max_invalid_fraction": "invalid_fraction",
    "max_missing_leads": "missing_leads",
    "max_flat_leads": "flat_leads",
    "max_peak_mv": "peak_mv",
    "max_limb_residual": "limb_residual",
}
"""Setting → the column of the index that it limits."""


@dataclass(frozen=True)
class Filter:
    """Which samples of a split are read; all that is set must hold."""

    sources: list[str] | None = None
    """Only these corpora."""
    labels: list[str] | None = None
    """Only samples that are stated to have at least one of these labels."""
    without_labels: list[str] | None = None
    """Only samples that are not stated to have any of these labels."""
    max_invalid_fraction: float | None = None
    """At most this share of invalid samples in the signal."""
    max_missing_leads: int | None = None
    """At most so many leads without a valid sample."""
    max_flat_leads: int | None = None
    """At most so many leads with one value all along."""
    max_peak_mv: float | None = None
    """No amplitude above so many millivolts."""
    max_limb_residual: float | None = None
    """Limb leads that agree to this residual, where it can be told (docs/data.md)."""
    min_text_length: int = 0
    """At least so many characters of report or conversation; 1 leaves out what has no text."""

    def __post_init__(self) -> None:
        for name in LIMITS:
            limit = getattr(self, name)
            if limit is not None and limit < 0:
                raise FilterError(f"data.filter.{name}: expected at least 0, found {limit}")

    def words(self) -> list[str]:
        """What is set, in words: `labels AFIB, AFLT`, `max_flat_leads 0`."""
        return [
            f"{entry.name} {', '.join(value) if isinstance(value, list) else value}"
            for entry in fields(self)
            if (value := getattr(self, entry.name)) != entry.default
        ]

    def apply(self, index: pa.Table) -> pa.Table:
        """The rows that pass.

        Raises:
            FilterError: none does, or a source or label is not in the index; the sentence names the setting.
        """
        keep = np.ones(index.num_rows, bool)
        if self.sources is not None:
            _check_known("sources", self.sources, pc.unique(index["source"]).to_pylist())
            keep &= np.asarray(pc.is_in(index["source"], pa.array(self.sources)))
        if self.labels is not None:
            keep &= _has_any(index, self.labels, "labels")
        if self.without_labels is not None:
            keep &= ~_has_any(index, self.without_labels, "without_labels")
        for setting, column in LIMITS.items():
            limit = getattr(self, setting)
            if limit is not None:
                # What cannot be told is null, and no reason to leave a sample out.
                keep &= np.asarray(pc.fill_null(pc.less_equal(index[column], limit), True))
        keep &= index["text_length"].to_numpy() >= self.min_text_length
        if not keep.any():
            raise FilterError(f"data.filter ({'; '.join(self.words())}) leaves none of {index.num_rows} samples; loosen it")
        return index if keep.all() else index.filter(pa.array(keep))


def _has_any(index: pa.Table, wanted: Sequence[str], setting: str) -> NDArray[np.bool_]:
    """(rows,) whether a sample has one of the labels."""
    labels = index["labels"].combine_chunks()
    flat = pc.list_flatten(labels)
    _check_known(setting, wanted, pc.unique(flat).to_pylist())
    has = np.zeros(index.num_rows, bool)
    has[np.asarray(pc.list_parent_indices(labels))[np.asarray(pc.is_in(flat, pa.array(wanted, flat.type)))]] = True
    return has


def _check_known(setting: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0)
            raise FilterError(
                f"data.filter.{setting}: no {name!r} here; did you mean {', '.join(nearest) or '(there are none)'}?"
            )
