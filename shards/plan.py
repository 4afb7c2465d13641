"""What a build is going to do: which record goes into which shard, decided before any signal is read.

Corpora are sorted by patient and by date, so records are spread by a seeded hash. Shard i of a split holds planned records
[i R, (i + 1) R): a record that is rejected later moves no boundary, and shards can be built in any order, anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from shards.record import SPLITS, Split

Kind = Literal["ecg", "conversation"]
"""What the samples of a data set are: ECGs with what is said of them, or conversations about ECGs."""


class Sample(Protocol):
    """What a source reads and a shard holds."""

    @property
    def key(self) -> str:
        """Name in its shard, without a dot; stands once in a data set."""
        ...

    @property
    def split(self) -> Split:
        """The split that it belongs to."""
        ...

    def to_members(self) -> dict[str, bytes]:
        """Shard members, extension → bytes; the same sample always gives the same bytes."""
        ...

    def index_row(self) -> dict[str, Any]:
        """Its row of the index, but for shard, offset and bytes."""
        ...


@dataclass(frozen=True, slots=True)
class PlannedRecord:
    """A row of a corpus whose files are there. A corpus has up to millions: keep it small."""

    record_id: str
    split: Split
    row: Mapping[str, Any]
    """The publisher's row, or what else the source that planned it needs to read it. Pickled on its way to a worker."""


@dataclass(frozen=True)
class AbsentRecord:
    """A row of a corpus whose files are not there, as in a partial download."""

    record_id: str
    reason: str


@dataclass(frozen=True)
class RejectedRecord:
    """A record whose files are there but which cannot become a sample."""

    record_id: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """All rows of a corpus: those to read, those whose files are absent, those whose row is no use."""

    records: list[PlannedRecord]
    absent: list[AbsentRecord]
    rejected: list[RejectedRecord]


class Source(Protocol):
    """A corpus in its publisher's layout, or another data set that samples are made from. Goes to worker processes."""

    name: str
    simulated: bool
    kind: Kind
    """Of the samples that it reads."""

    def provenance(self) -> dict[str, Any]:
        """What the manifest says of where the records come from."""
        ...

    def plan(self) -> Plan:
        """All rows, without reading a signal."""
        ...

    def read(self, planned: PlannedRecord) -> Sample:
        """One sample; raises `RecordError` where it cannot become a sample."""
        ...


@dataclass(frozen=True)
class PlannedShard:
    """The records of one shard, in their order."""

    name: str
    split: Split
    records: list[PlannedRecord]


def plan_shards(plan: Plan, source: str, records_per_shard: int, seed: int) -> list[PlannedShard]:
    """Spread the records of each split over shards of `records_per_shard`, in an order that depends on the ids alone."""
    shards = []
    for split in SPLITS:
        records = sorted(
            (record for record in plan.records if record.split == split),
            key=lambda record: hashlib.sha256(f"{seed}/{source}/{record.record_id}".encode()).digest(),
        )
        for number, start in enumerate(range(0, len(records), records_per_shard)):
            shards.append(PlannedShard(f"{split}-{number:06d}.tar", split, records[start : start + records_per_shard]))
    return shards
