"""A built data set: its manifest, its index, and where its shards lie.

`manifest.json` is written last and is the truth; `index.parquet` has a row for every sample. Both together say what there
is without opening a shard.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.identity import Identity
from shards.selection import Filter, FilterError
from shards.storage import MissingObject, Patience, Store
from shards.tar import decode_array, decode_json, unpack_samples

MANIFEST = "manifest.json"
INDEX = "index.parquet"
SCHEMA_VERSION = 4

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("xxh3", pa.uint64()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("record_id", pa.string()),
        ("patient_hash", pa.string()),
        ("text_hash", pa.string()),
        ("fs_hz", pa.float64()),
        ("ecgs", pa.int64()),
        ("samples", pa.int64()),
        ("mv_per_lsb", pa.list_(pa.float64())),
        ("invalid_fraction", pa.float64()),
        ("missing_leads", pa.int64()),
        ("flat_leads", pa.int64()),
        ("peak_mv", pa.float64()),
        ("r_amplitude_mv", pa.float64()),
        ("limb_residual", pa.float64()),
        ("text_length", pa.int64()),
        ("labels", pa.list_(pa.string())),
        ("unknown_labels", pa.list_(pa.string())),
        ("answers", pa.list_(pa.string())),
    ]
)
"""`offset` and `bytes` are the sample's range in its shard, tar headers included, and `xxh3` is the XXH3-64 of that range;
`mv_per_lsb` are twelve scales for each of its ECGs; `labels` are those with value 1. `r_amplitude_mv` and `limb_residual` are
those of `shards.plausibility`, null where they cannot be told.

`ecgs` is 1 for an ECG sample, and the number of its ECGs for a conversation; `fs_hz` is null where there is none. `labels` of
a conversation are the kinds of its questions, `answers` what is expected of them (`rhythm=AFIB`, `finding:PVC=no`).
"""

MADE_BY = {"ecg": "ecgchat shards build", "conversation": "ecgchat shards conversations"}
"""Kind of data set → command that makes one."""


class DatasetError(ValueError):
    """A data set that cannot be used as asked: one sentence."""


@dataclass(frozen=True)
class ShardSet:
    """The samples of one data set, in shard order: what an order of reading is made from."""

    store: Store
    manifest: dict[str, Any]
    index: pa.Table
    selection: str = ""
    """In words, which rows of the index were taken: part of what a data position belongs to."""

    @classmethod
    def open(cls, uri: str, patience: Patience = Patience()) -> ShardSet:
        """Read the manifest and the index below a URI.

        Args:
            uri: where the shards lie.
            patience: how long its store is asked again, here and for every later read.

        Raises:
            DatasetError: there is no manifest, it is of another schema, or the index is not the one it names.
            StorageError: the store does not answer.
        """
        store = Store(uri, patience)
        try:
            manifest = json.loads(store.get(MANIFEST))
        except MissingObject as error:
            raise DatasetError(
                f"{store.uri}: no {MANIFEST}, so there is no data set here; check the URI, or build one with "
                "'ecgchat shards build'"
            ) from error
        except ValueError as error:
            raise DatasetError(f"{store.uri_of(MANIFEST)}: not a JSON document ({error}); build the shards again") from error
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise DatasetError(
                f"{store.uri_of(MANIFEST)}: schema {manifest.get('schema_version')}, this version reads {SCHEMA_VERSION}; "
                "build the shards again"
            )
        body = store.get(INDEX)
        if hashlib.sha256(body).hexdigest() != manifest["index"]["sha256"]:
            raise DatasetError(
                f"{store.uri_of(INDEX)}: not the index that {MANIFEST} names; build the shards again, or copy both together"
            )
        return cls(store, manifest, pq.read_table(io.BytesIO(body)))

    @property
    def digest(self) -> str:
        """sha256 of the index: two data sets with the same digest hold the same samples in the same places."""
        return str(self.manifest["index"]["sha256"])

    @property
    def kind(self) -> str:
        """What its samples are: `ecg` or `conversation`."""
        return str(self.manifest["kind"])

    @property
    def simulated(self) -> bool:
        """Whether nothing in it comes from a person."""
        return bool(self.manifest["simulated"])

    @property
    def rates(self) -> list[float]:
        """Sampling rates of its ECGs in Hz, sorted, each once."""
        return sorted(set(self.index["fs_hz"].to_pylist()) - {None})

    @property
    def identity(self) -> Identity:
        """What a data position belongs to: the index, what was taken of it, and the shards that hold it."""
        sha256 = {shard["name"]: str(shard["sha256"]) for shard in self.manifest["shards"]}
        return Identity(self.digest, self.selection, {name: sha256[name] for name in self.shard_names})

    @property
    def shard_names(self) -> list[str]:
        """The shards that its samples lie in, in the order of the index."""
        return [str(name) for name in pc.unique(self.index["shard"]).to_pylist()]

    def select(self, split: str, only: Filter = Filter()) -> ShardSet:
        """The samples of one split that pass a filter.

        Raises:
            DatasetError: none is left, or the filter names a source or label that the data set does not have.
        """
        rows = self.index.filter(pc.field("split") == split)
        if rows.num_rows == 0:
            found = ", ".join(f"{name} {count}" for name, count in self.manifest["counts"]["split"].items())
            raise DatasetError(f"{self.store.uri}: split {split!r} is empty (found {found}); choose another split or corpus")
        try:
            taken = only.apply(rows)
        except FilterError as error:
            raise DatasetError(f"{self.store.uri}, split {split!r}: {error}") from error
        return ShardSet(self.store, self.manifest, taken, "; ".join([f"split {split}", *only.words()]))

    def sample(self, key: str) -> tuple[str, np.ndarray[Any, Any], dict[str, Any]]:
        """One ECG sample by its key: (key, (12, samples) int16, description).

        Raises:
            DatasetError: there is none with that key, or it is a conversation.
        """
        self.require_kind("ecg", f"reading {key!r} as one ECG")
        found, members = self.members(key)
        return found, decode_array(members["ecg.npy"]), decode_json(members["json"])

    def members(self, key: str) -> tuple[str, dict[str, memoryview]]:
        """The members of one sample of any kind by its key: (key, extension → bytes).

        Raises:
            DatasetError: there is none with that key.
        """
        rows = self.index.filter(pc.field("key") == key).to_pylist()
        if not rows:
            nearest = difflib.get_close_matches(key, self.index["key"].to_pylist(), n=1, cutoff=0)
            raise DatasetError(f"{self.store.uri}: no sample {key!r}; keys look like {nearest[0] if nearest else '(none)'}")
        return read_members(self.store, rows[0])

    def require_kind(self, kind: str, stage: str) -> None:
        """Refuse samples of another kind than a stage takes.

        Raises:
            DatasetError: names both kinds and the command that makes the right one.
        """
        if self.kind != kind:
            raise DatasetError(
                f"{self.store.uri}: a data set of kind {self.kind!r}, {stage} takes kind {kind!r}; name another data set, or "
                f"make one with '{MADE_BY[kind]}'"
            )

    def descriptions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Key and description of every sample, in shard order; each shard is read once, from its beginning, and let go."""
        keys = set(self.index["key"].to_pylist())
        for shard in dict.fromkeys(self.index["shard"].to_pylist()):
            for key, members in unpack_samples(self.store.get(shard), self.store.uri_of(shard)):
                if key in keys:
                    yield key, decode_json(members["json"])

    def require_rate(self, fs_hz: float, stage: str) -> None:
        """Refuse samples of another sampling rate than a stage takes; those without an ECG have none and pass.

        Raises:
            DatasetError: names both rates and the two ways out.
        """
        found = self.rates
        if any(rate != fs_hz for rate in found):
            rates = ", ".join(f"{value:g}" for value in found)
            raise DatasetError(
                f"{self.store.uri}: sampled at {rates} Hz, stage {stage} takes {fs_hz:g} Hz; build the shards at {fs_hz:g} Hz "
                f"(--rate) or set model.ecg.sampling_rate_hz to the shards' rate"
            )


def read_members(store: Store, row: Mapping[str, Any]) -> tuple[str, dict[str, memoryview]]:
    """The members of the sample that lies where a row of the index says: (key, extension → bytes).

    Raises:
        ShardFormatError: no whole sample lies there.
        StorageError: the store does not answer.
    """
    body = store.get_range(row["shard"], row["offset"], row["bytes"])
    [sample] = unpack_samples(body, store.uri_of(row["shard"]))
    return sample


def index_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as built, one a sample, in the schema of the index."""
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def index_bytes(table: pa.Table) -> bytes:
    """The Parquet file of an index; the same rows give the same bytes."""
    body = io.BytesIO()
    pq.write_table(table, body, compression="zstd")
    return body.getvalue()
