"""The table of lengths: kept beside the shards or in the user's cache, and never taken for another data set or tokenizer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from shards.dataset import ShardSet
from shards.lengths import read_lengths, rows_of, write_lengths
from shards.storage import Store

DIGEST = "d" * 64


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(report_shards, cache, tmp_path):
    """A copy of a data set with its index and manifest alone: lengths need no more."""
    store = Store(str(tmp_path / "set"))
    for name in ("manifest.json", "index.parquet"):
        store.put(name, Store(report_shards).get(name))
    return ShardSet.open(store.uri)


def lengths_for(data):
    return np.arange(data.index.num_rows) + 100


def parquet_files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.parquet") if "index" not in path.name)


def test_nobody_has_counted_yet(data):
    assert read_lengths(data, DIGEST) is None


def test_what_was_written_is_read(data, tmp_path):
    uri = write_lengths(data, DIGEST, "some tokenizer", lengths_for(data))
    assert uri == f"{data.store.uri}/lengths/{DIGEST}.parquet"
    assert parquet_files(tmp_path) == [f"set/lengths/{DIGEST}.parquet"]
    found = read_lengths(ShardSet.open(data.store.uri), DIGEST)
    assert found.dtype == np.int64
    assert np.array_equal(found, lengths_for(data))


def test_the_table_says_what_it_is_of_and_names_no_sample(data, tmp_path):
    write_lengths(data, DIGEST, "some tokenizer", lengths_for(data))
    table = pq.read_table(tmp_path / "set" / "lengths" / f"{DIGEST}.parquet")
    assert {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)} == {"tokens": "int32"}
    facts = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
    assert facts == {"index_sha256": data.digest, "digest": DIGEST, "of": "some tokenizer", "rows": str(data.index.num_rows)}


def test_tables_of_several_tokenizers_lie_side_by_side(data):
    write_lengths(data, DIGEST, "one", lengths_for(data))
    write_lengths(data, "e" * 64, "another", 2 * lengths_for(data))
    assert np.array_equal(read_lengths(data, DIGEST), lengths_for(data))
    assert np.array_equal(read_lengths(data, "e" * 64), 2 * lengths_for(data))


def test_the_table_of_the_index_that_was_there_before_is_not_taken(data):
    """As when shards were deleted and built anew under one URI, with as many samples."""
    write_lengths(data, DIGEST, "some tokenizer", lengths_for(data))
    rebuilt = of_another_index(data)
    assert read_lengths(rebuilt, DIGEST) is None
    write_lengths(rebuilt, DIGEST, "some tokenizer", 2 * lengths_for(data))
    assert np.array_equal(read_lengths(rebuilt, DIGEST), 2 * lengths_for(data))


def test_a_damaged_table_is_as_none(data, tmp_path):
    write_lengths(data, DIGEST, "some tokenizer", lengths_for(data))
    file = tmp_path / "set" / "lengths" / f"{DIGEST}.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    assert read_lengths(data, DIGEST) is None


def test_shards_that_are_read_only_have_their_table_in_the_cache(data, cache):
    data = read_only(data)
    uri = write_lengths(data, DIGEST, "some tokenizer", lengths_for(data))
    assert uri.startswith(f"file://{cache}/ecgchat/")
    assert np.array_equal(read_lengths(data, DIGEST), lengths_for(data))


def test_the_cache_of_one_data_set_is_not_read_for_another(data):
    data = read_only(data)
    write_lengths(data, DIGEST, "some tokenizer", lengths_for(data))
    assert read_lengths(of_another_index(data), DIGEST) is None


def read_only(data):
    """The same below a folder that takes no file, not even of root."""
    return replace(data, store=Store("/sys"))


def of_another_index(data):
    return replace(data, manifest={**data.manifest, "index": {**data.manifest["index"], "sha256": "f" * 64}})


@pytest.mark.slow
def test_an_object_store_keeps_the_table_too(data, s3):
    store = Store(f"{s3}/set")
    for name in ("manifest.json", "index.parquet"):
        store.put(name, data.store.get(name))
    remote = ShardSet.open(store.uri)
    assert read_lengths(remote, DIGEST) is None
    assert write_lengths(remote, DIGEST, "some tokenizer", lengths_for(remote)) == f"{s3}/set/lengths/{DIGEST}.parquet"
    assert np.array_equal(read_lengths(remote, DIGEST), lengths_for(remote))


def test_a_split_finds_its_rows(data):
    rows = rows_of(data.select("val"), data)
    assert data.index["split"].to_numpy(zero_copy_only=False)[rows].tolist() == ["val"] * len(rows)
    assert data.index.take(rows)["key"].equals(data.select("val").index["key"])
    assert np.array_equal(rows_of(data, data), np.arange(data.index.num_rows))


def test_a_part_of_another_data_set_is_refused(data, dialogue_shards):
    with pytest.raises(ValueError, match="expected a part of file://.*, found [0-9]+ samples of another"):
        rows_of(ShardSet.open(dialogue_shards), data)


def test_a_part_has_no_table_of_its_own(data):
    with pytest.raises(ValueError, match="expected the whole data set, found"):
        read_lengths(data.select("val"), DIGEST)
    with pytest.raises(ValueError, match="expected the whole data set, found"):
        write_lengths(data.select("val"), DIGEST, "some tokenizer", lengths_for(data))


def test_every_sample_has_a_length(data):
    with pytest.raises(ValueError, match=f"expected a length for each of {data.index.num_rows} samples, found 3"):
        write_lengths(data, DIGEST, "some tokenizer", np.ones(3, int))
