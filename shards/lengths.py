"""How many tokens each sample of a data set has: a table that is computed once for a tokenizer, and read ever after.

    lengths = read_lengths(data, digest)            # None: nobody has counted yet
    write_lengths(data, digest, "tokenizer of …", lengths)

It lies beside the shards as `lengths/<digest>.parquet`, or in the user's cache where nothing can be written there, and has
one row for each row of the index, in order: `tokens`, int32. It names no sample.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards.dataset import ShardSet
from shards.storage import StorageError, Store, user_cache

FOLDER = "lengths"


def read_lengths(data: ShardSet, digest: str) -> NDArray[np.int64] | None:
    """(rows of the index,) tokens of each sample; None where there is no table for this index and digest.

    Args:
        data: a whole data set; `rows_of` finds the rows of a split.
        digest: names what decides how many tokens a text has.

    Raises:
        StorageError: the store does not answer.
        ValueError: `data` is a part of a data set.
    """
    _require_whole(data)
    for store in _places(data):
        lengths = _read(store, digest, data)
        if lengths is not None:
            return lengths
    return None


def write_lengths(data: ShardSet, digest: str, of: str, lengths: NDArray[np.int64]) -> str:
    """Keep a table for `read_lengths`, and return its URI: beside the shards if that can be, else in the user's cache.

    Args:
        data: a whole data set.
        digest: names what decides how many tokens a text has.
        of: the same in words, for whoever finds the file.
        lengths: (rows of the index,) tokens of each sample.

    Raises:
        StorageError: neither place takes the table.
        ValueError: `data` is a part of a data set, or has another number of samples.
    """
    _require_whole(data)
    if len(lengths) != data.index.num_rows:
        raise ValueError(f"expected a length for each of {data.index.num_rows} samples, found {len(lengths)}")
    facts = {"index_sha256": data.digest, "digest": digest, "of": of, "rows": str(len(lengths))}
    table = pa.table({"tokens": pa.array(lengths, pa.int32())}).replace_schema_metadata(facts)
    body = io.BytesIO()
    pq.write_table(table, body, compression="zstd")
    beside, cache = _places(data)
    try:
        beside.put(_name(digest), body.getvalue())
    except OSError:
        # Shards are often shared, and not everybody who reads them may write there. A `StorageError` is one of these.
        cache.put(_name(digest), body.getvalue())
        return cache.uri_of(_name(digest))
    return beside.uri_of(_name(digest))


def rows_of(part: ShardSet, whole: ShardSet) -> NDArray[np.int64]:
    """(samples of the part,) their rows in the index of the whole data set: `lengths[rows_of(data.select("train"), data)]`.

    Raises:
        ValueError: the part holds a sample that the whole does not.
    """
    rows = pc.index_in(part.index["key"], value_set=whole.index["key"].combine_chunks())
    if rows.null_count:
        raise ValueError(f"{part.store.uri}: expected a part of {whole.store.uri}, found {rows.null_count} samples of another")
    found: NDArray[np.int64] = rows.to_numpy().astype(np.int64)
    return found


def _places(data: ShardSet) -> tuple[Store, Store]:
    """Where a table may lie: beside the shards, or in the cache below the name of the index."""
    return data.store, Store(str(user_cache() / data.digest[:24]))


def _read(store: Store, digest: str, data: ShardSet) -> NDArray[np.int64] | None:
    """The table of one place, unless it is missing, damaged, or of an index that was there before."""
    try:
        table = pq.read_table(io.BytesIO(store.get(_name(digest))))
    except StorageError as error:
        # A bucket whose names may not be listed answers so for what is not there.
        if isinstance(error.__cause__, FileNotFoundError | PermissionError):
            return None
        raise
    except pa.ArrowInvalid:
        return None
    facts = table.schema.metadata or {}
    if facts.get(b"index_sha256") != data.digest.encode() or table.num_rows != data.index.num_rows:
        return None
    lengths: NDArray[np.int64] = table["tokens"].to_numpy().astype(np.int64)
    return lengths


def _name(digest: str) -> str:
    return f"{FOLDER}/{digest}.parquet"


def _require_whole(data: ShardSet) -> None:
    if data.index.num_rows != data.manifest["index"]["rows"]:
        raise ValueError(f"{data.store.uri}: expected the whole data set, found {data.index.num_rows} of its samples")
