"""Read a data set again, all of it, and say what is not as its manifest and index say."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from shards.conversations.loader import decode_conversation
from shards.conversations.record import check_conversation
from shards.dataset import INDEX_SCHEMA, ShardSet
from shards.record import LEADS, peak_mv, signal_quality
from shards.storage import StorageError
from shards.tar import END_OF_ARCHIVE, ShardFormatError, checksum, decode_array, decode_json, unpack_samples

Fact = tuple[str, Any, Any]
"""Name of something, what was found, what was expected."""


def verify(data: ShardSet, on_shard: Callable[[str], None] = lambda name: None) -> list[str]:
    """Everything that is wrong, one sentence each; empty where nothing is."""
    problems = list(_index_problems(data))
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in data.index.to_pylist():
        rows[row["shard"]].append(row)
    for shard in data.manifest["shards"]:
        problems += _shard_problems(data, shard, rows.pop(shard["name"], []))
        on_shard(shard["name"])
    problems += [f"{name}: in the index but not in the manifest" for name in rows]
    return problems


def _index_problems(data: ShardSet) -> Iterator[str]:
    keys = Counter(data.index["key"].to_pylist())
    yield from (f"sample {key} stands {count} times in the index" for key, count in keys.items() if count > 1)
    splits = defaultdict(set)
    for patient, split in zip(data.index["patient_hash"].to_pylist(), data.index["split"].to_pylist(), strict=True):
        if patient:
            splits[patient].add(split)
    torn = [names for names in splits.values() if len(names) > 1]
    if torn:
        yield f"{len(torn)} patients have records in more than one split"
    expected = data.manifest["index"]["rows"]
    if data.index.num_rows != expected:
        yield f"the index has {data.index.num_rows} rows, the manifest says {expected}"
    other = [field.name for field in INDEX_SCHEMA if field.name not in data.index.schema.names]
    if other:
        yield f"the index lacks the columns {', '.join(other)}"
    yield from _wrong_counts(data)


def _wrong_counts(data: ShardSet) -> Iterator[str]:
    counts = data.manifest["counts"]
    for column in ("split", "source"):
        found = dict(Counter(data.index[column].to_pylist()))
        if found != counts[column]:
            yield f"the index has the {column} counts {found}, the manifest says {counts[column]}"


def _range_problems(where: str, size: int, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Samples stand one after the other from the shard's first byte to its end mark."""
    position = 0
    for row in sorted(rows, key=lambda row: int(row["offset"])):
        if row["offset"] != position:
            yield f"{where}: sample {row['key']} begins at byte {row['offset']}, expected {position}"
        position = row["offset"] + row["bytes"]
    if position + len(END_OF_ARCHIVE) != size:
        yield f"{where}: the samples of the index end at byte {position}, the shard has {size - len(END_OF_ARCHIVE)}"


def _shard_problems(data: ShardSet, shard: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    where = data.store.uri_of(shard["name"])
    try:
        body = data.store.get(shard["name"])
    except StorageError as error:
        return [str(error)]
    if hashlib.sha256(body).hexdigest() != shard["sha256"]:
        return [
            f"{where}: {len(body)} bytes whose sha256 is not the manifest's ({shard['bytes']} bytes); copy or build it again"
        ]
    problems = []
    if len(rows) != shard["samples"]:
        problems.append(f"{where}: {len(rows)} rows in the index, the manifest says {shard['samples']}")
    problems += _range_problems(where, len(body), rows)
    for row in rows:
        try:
            place = memoryview(body)[row["offset"] : row["offset"] + row["bytes"]]
            if checksum(place) != row["xxh3"]:
                problems.append(f"{where}: sample {row['key']}: its bytes are not those that the index was made for")
            [(key, members)] = unpack_samples(place, where)
            for name, found, expected in CHECKS[data.kind](key, members, row, where):
                if found != expected:
                    problems.append(f"{where}: sample {row['key']}: {name} is {found}, expected {expected}")
        except (ShardFormatError, KeyError, TypeError, ValueError) as error:
            problems.append(f"{where}: sample {row['key']} cannot be read ({error})")
    return problems


def _ecg_facts(key: str, members: dict[str, memoryview], row: dict[str, Any], where: str) -> Iterator[Fact]:
    ecg, record = decode_array(members["ecg.npy"]), decode_json(members["json"])
    yield from _facts_of_both(key, record, row)
    yield "signal", (ecg.dtype, ecg.shape), (np.dtype(np.int16), (len(LEADS), row["samples"]))
    yield "scales", [0 < scale < np.inf for scale in record["mv_per_lsb"]], [True] * len(LEADS)
    yield "scales in the index", row["mv_per_lsb"], record["mv_per_lsb"]
    yield "quality", signal_quality(ecg), record["quality"]
    yield "peak in mV", peak_mv(ecg, record["mv_per_lsb"]), row["peak_mv"]
    yield "labels", sorted(name for name, value in record["labels"].items() if value == 1), row["labels"]
    yield "values of labels", set(record["labels"].values()) <= {0, 1, None}, True


def _conversation_facts(key: str, members: dict[str, memoryview], row: dict[str, Any], where: str) -> Iterator[Fact]:
    sample = decode_conversation(key, members, where)
    record = sample.record
    yield from _facts_of_both(key, record, row)
    yield "number of ECGs", (len(sample.ecgs), len(record["records"])), (row["ecgs"], row["ecgs"])
    for ecg in sample.ecgs:
        yield "signal", (ecg.dtype, ecg.shape[0]), (np.dtype(np.int16), len(LEADS))
    yield "samples of the first signal", sample.ecgs[0].shape[1] if sample.ecgs else 0, row["samples"]
    yield "scales", [len(scales) for scales in record["mv_per_lsb"]], [len(LEADS)] * row["ecgs"]
    yield "scales in the index", row["mv_per_lsb"], [scale for scales in record["mv_per_lsb"] for scale in scales]
    yield "number of answers", 2 * len(record["answers"]), len(record["conversations"])
    check_conversation(record["conversations"], len(sample.ecgs))


def _facts_of_both(key: str, record: dict[str, Any], row: dict[str, Any]) -> Iterator[Fact]:
    yield "key", key, row["key"]
    yield "leads", record["leads"], list(LEADS)
    yield "split", record["split"], row["split"]
    yield "sampling rate", record["fs_hz"], row["fs_hz"]
    yield "record id", record["record_id"], row["record_id"]


CHECKS: dict[str, Callable[[str, dict[str, memoryview], dict[str, Any], str], Iterator[Fact]]] = {
    "ecg": _ecg_facts,
    "conversation": _conversation_facts,
}
"""Kind of data set → what is checked of each sample, from (key, members, row of the index, where)."""
