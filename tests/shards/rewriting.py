"""Data sets made wrong on purpose, with checksums that fit what is wrong."""

import hashlib
import io
import json

import pyarrow.parquet as pq

from shards.dataset import index_bytes, index_table
from shards.tar import add_sample, checksum, unpack_samples


def rewrite_index(folder, change):
    """Let `change` have the rows of the index, and make the manifest name the outcome."""
    rows = pq.read_table(io.BytesIO((folder / "index.parquet").read_bytes())).to_pylist()
    body = index_bytes(index_table(change(rows)))
    (folder / "index.parquet").write_bytes(body)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["index"]["sha256"] = hashlib.sha256(body).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rewrite_sample(folder, row, change):
    """Let `change` have the members of one sample, and make index and manifest name the outcome; it must keep its size."""
    shard = folder / row["shard"]
    body = bytearray(shard.read_bytes())
    start, stop = row["offset"], row["offset"] + row["bytes"]
    [(key, members)] = unpack_samples(bytes(body[start:stop]), "")
    packed = bytearray()
    for part in change({name: bytes(member) for name, member in members.items()}, row["bytes"]):
        add_sample(packed, key, part)
    assert len(packed) == row["bytes"]
    body[start:stop] = packed
    shard.write_bytes(body)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    [entry] = [entry for entry in manifest["shards"] if entry["name"] == row["shard"]]
    entry["sha256"] = hashlib.sha256(body).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    new = {**row, "xxh3": checksum(bytes(packed))}
    rewrite_index(folder, lambda rows: [new if other["key"] == row["key"] else other for other in rows])
