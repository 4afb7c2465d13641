"""Read a data set again, all of it, and say what is not as its manifest and index say."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from shards.dataset import ShardSet
from shards.record import LEADS
from shards.storage import StorageError
from shards.tar import ShardFormatError, decode_array, decode_json, unpack_samples


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
        splits[patient].add(split)
    torn = [names for names in splits.values() if len(names) > 1]
    if torn:
        yield f"{len(torn)} patients have records in more than one split"
    expected = data.manifest["index"]["rows"]
    if data.index.num_rows != expected:
        yield f"the index has {data.index.num_rows} rows, the manifest says {expected}"


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
    for row in rows:
        try:
            problems += _sample_problems(body[row["offset"] : row["offset"] + row["bytes"]], row, where)
        except (ShardFormatError, KeyError, ValueError) as error:
            problems.append(f"{where}: sample {row['key']} cannot be read ({error})")
    return problems


def _sample_problems(body: bytes, row: dict[str, Any], where: str) -> Iterator[str]:
    [(key, members)] = unpack_samples(body, where)
    ecg, record = decode_array(members["ecg.npy"]), decode_json(members["json"])
    wanted = {
        "key": (key, row["key"]),
        "signal": ((ecg.dtype, ecg.shape), (np.dtype(np.int16), (len(LEADS), row["samples"]))),
        "leads": (record["leads"], list(LEADS)),
        "scales": (len(record["mv_per_lsb"]), len(LEADS)),
        "split": (record["split"], row["split"]),
        "sampling rate": (record["fs_hz"], row["fs_hz"]),
        "record id": (record["record_id"], row["record_id"]),
    }
    for name, (found, expected) in wanted.items():
        if found != expected:
            yield f"{where}: sample {row['key']}: {name} is {found}, expected {expected}"
