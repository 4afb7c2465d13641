"""Data sets made wrong on purpose, with checksums that fit what is wrong; and corpora with another table."""

import csv
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


def edit_row(folder, record_id, **values):
    """Change fields of a record in the table of a PTB-XL folder."""
    table = folder / "ptbxl_database.csv"
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, names = list(reader), reader.fieldnames
    for row in rows:
        if row["ecg_id"] == record_id:
            row.update(values)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
