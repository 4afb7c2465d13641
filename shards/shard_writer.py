"""One shard: its records read, packed and stored, with a note of what is in it that lets an interrupted build go on.

The note is written after the shard: a shard with a note is whole. Notes lie below `unfinished/` until the manifest is there.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shards.dataset import INDEX_SCHEMA, index_table
from shards.plan import PlannedShard, RejectedRecord, Sample, Source
from shards.plausibility import limb_residual, r_amplitude_mv
from shards.record import EcgRecord, RecordError
from shards.storage import MissingObject, Store
from shards.tar import END_OF_ARCHIVE, add_sample

UNFINISHED = "unfinished"
"""Folder of the data set that holds the plan and the notes of a build that has not ended."""


@dataclass(frozen=True)
class BuiltShard:
    """What is known of a shard once it is in the store."""

    name: str
    bytes: int
    sha256: str
    rows: pa.Table
    """Its rows of the index."""
    rejected: list[RejectedRecord]


@dataclass(frozen=True)
class ShardWriter:
    """Builds the shards of a source into a store. Goes to worker processes."""

    source: Source
    store: Store

    def __call__(
        self,
        planned: PlannedShard,
        refused: Mapping[str, str],
        on_record: Callable[[int], None],
    ) -> BuiltShard:
        """Read the records of one shard, write it, and say what is in it.

        Args:
            planned: the records of the shard.
            refused: record id → why it is rejected without being read.
            on_record: told the position of each record before it is read, and their number once all are.
        """
        body = bytearray()
        rows: list[dict[str, Any]] = []
        rejected: list[RejectedRecord] = []
        for position, item in enumerate(planned.records):
            on_record(position)
            try:
                if item.record_id in refused:
                    raise RecordError(refused[item.record_id])
                sample = self.source.read(item)
            except RecordError as error:
                rejected.append(RejectedRecord(item.record_id, str(error)))
                continue
            place = add_sample(body, sample.key, sample.to_members())
            rows.append({**sample.index_row(), **_plausibility(sample), "shard": planned.name, **place})
        on_record(len(planned.records))
        body += END_OF_ARCHIVE
        self.store.put(planned.name, body)
        built = BuiltShard(planned.name, len(body), hashlib.sha256(body).hexdigest(), index_table(rows), rejected)
        self.store.put(_note_name(planned), _note(built))
        return built


def _plausibility(sample: Sample) -> dict[str, float | None]:
    if not isinstance(sample, EcgRecord):
        return {}
    return {
        "r_amplitude_mv": r_amplitude_mv(sample.ecg, sample.mv_per_lsb, sample.fs_hz),
        "limb_residual": limb_residual(sample.ecg, sample.mv_per_lsb),
    }


def finished_shard(store: Store, planned: PlannedShard) -> BuiltShard | None:
    """What an earlier run of the same build noted of a shard, or None where it has to be built."""
    try:
        table = pq.read_table(io.BytesIO(store.get(_note_name(planned))))
        known = json.loads(table.schema.metadata[b"shard"])
        if store.size(planned.name) != known["bytes"]:
            return None
    except MissingObject:
        return None
    rejected = [RejectedRecord(**record) for record in known["rejected"]]
    # Parquet adds numbers of its own to the fields of a schema, which would change the bytes of the index.
    return BuiltShard(planned.name, known["bytes"], known["sha256"], table.cast(INDEX_SCHEMA), rejected)


def _note_name(planned: PlannedShard) -> str:
    return f"{UNFINISHED}/{planned.name}.parquet"


def _note(built: BuiltShard) -> bytes:
    known = {"bytes": built.bytes, "sha256": built.sha256, "rejected": [asdict(record) for record in built.rejected]}
    note = io.BytesIO()
    pq.write_table(built.rows.replace_schema_metadata({"shard": json.dumps(known)}), note)
    return note.getvalue()
