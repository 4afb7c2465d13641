"""Several data sets as one: how often each is read in an epoch, counted exactly.

    MIMIC once, SPH twice:                  repeats 1 and 2; an epoch has N + 2 M samples
    instructions once, 10 % replay:         repeats 1 and share 0.1; an epoch has N / 0.9 samples, a tenth of them replay

A part that an epoch does not take whole goes on in the next epoch where it stopped: after any number of epochs, the uses of its
samples differ by one at most. Within an epoch they may differ more, since lanes read different parts of it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shards.dataset import DatasetError, ShardSet
from shards.identity import Identity


@dataclass(frozen=True)
class Proportion:
    """How often a part stands in an epoch: a number of repeats, or a share of the whole."""

    repeats: float = 1.0
    """Times that each of its samples is read; a fraction takes as many samples, and others of them in the next epoch."""
    share: float | None = None
    """Share of the epoch's samples instead, in (0, 1); what is left is given by the repeats of the others."""

    def __post_init__(self) -> None:
        if not self.repeats > 0:
            raise DatasetError(f"data.shards[].repeats: expected more than 0, found {self.repeats:g}")
        if self.share is not None and not 0 < self.share < 1:
            raise DatasetError(f"data.shards[].share: expected a share between 0 and 1, found {self.share:g}")


@dataclass(frozen=True)
class Mixture:
    """Data sets of one kind and how often each is read; what a loader reads.

    Raises:
        DatasetError: the parts are of several kinds, or no part says how long an epoch is.
    """

    parts: tuple[ShardSet, ...]
    proportions: tuple[Proportion, ...]

    def __post_init__(self) -> None:
        kinds = sorted({part.kind for part in self.parts})
        if len(kinds) != 1:
            raise DatasetError(f"data.shards: expected data sets of one kind, found {' and '.join(kinds)}; train them apart")
        shares = sum(part.share or 0.0 for part in self.proportions)
        if shares >= 1 or all(part.share for part in self.proportions):
            raise DatasetError(
                f"data.shards: the shares add up to {shares:g}; expected less than 1, and one part or more with repeats, which "
                "says how long an epoch is"
            )

    @classmethod
    def of(cls, data: ShardSet | Mixture) -> Mixture:
        """One data set, each of its samples once an epoch; a mixture stays what it is."""
        return data if isinstance(data, Mixture) else cls((data,), (Proportion(),))

    def __len__(self) -> int:
        return sum(part.index.num_rows for part in self.parts)

    def require_kind(self, kind: str, stage: str) -> None:
        """Refuse samples of another kind than a stage takes; raises `DatasetError`."""
        for part in self.parts:
            part.require_kind(kind, stage)

    def taken(self, units: Sequence[int]) -> list[int]:
        """How many units (samples or packs) of each part an epoch takes, of so many that it has."""
        shares = sum(part.share or 0.0 for part in self.proportions)
        pairs = list(zip(units, self.proportions, strict=True))
        repeated = sum(round(count * part.repeats) for count, part in pairs if part.share is None)
        whole = repeated / (1 - shares)
        return [max(1, round(count * part.repeats if part.share is None else part.share * whole)) for count, part in pairs]

    @property
    def identity(self) -> Identity:
        """What a data position belongs to, for all parts."""
        parts = [part.identity for part in self.parts]
        if len(parts) == 1:
            return parts[0]
        return Identity(
            "+".join(part.index_sha256 for part in parts),
            " + ".join(
                f"{part.selection} ({share_or_repeats(proportion)})"
                for part, proportion in zip(parts, self.proportions, strict=True)
            ),
            {
                data.store.uri_of(name): sha256
                for data, part in zip(self.parts, parts, strict=True)
                for name, sha256 in part.shards.items()
            },
        )


def share_or_repeats(proportion: Proportion) -> str:
    """In words: `repeats 2`, `share 0.1`."""
    return f"repeats {proportion.repeats:g}" if proportion.share is None else f"share {proportion.share:g}"
