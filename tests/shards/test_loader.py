"""Streaming: the samples of the order, whoever reads them, from a file system or a real S3 server."""

import itertools

import numpy as np
import pytest

from shards.build import BuildOptions, build
from shards.dataset import DatasetError, ShardSet
from shards.loader import EcgLoader, LoaderConfig
from shards.order import OrderConfig, Position
from shards.record import INVALID
from shards.sources.ptb_xl import PtbXl
from shards.storage import StorageError
from shards.tar import ShardFormatError

CONFIG = LoaderConfig(OrderConfig(global_batch=10, lanes=4, block=8))


@pytest.fixture(scope="module")
def training(simulated_shards):
    return ShardSet.open(simulated_shards).select("train")


def take(loader, count):
    batches = iter(loader)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_any_number_of_ranks_sees_the_same_global_batches(training, world_size):
    loaders = [EcgLoader(training, CONFIG, 1000, rank, world_size) for rank in range(world_size)]
    count = loaders[0].batches + 2
    seen = [take(loader, count) for loader in loaders]
    keys = training.index["key"].to_pylist()
    for number in range(count):
        epoch, batch = divmod(number, loaders[0].batches)
        expected = [keys[i] for i in loaders[0].order.batch_samples(epoch, batch)]
        assert [key for rank in seen for key in rank[number].keys if key] == expected


@pytest.mark.parametrize("world_size", [3, 7])
def test_short_ranks_are_padded_with_weight_zero(training, world_size):
    batches = [take(EcgLoader(training, CONFIG, 1000, rank, world_size), 1)[0] for rank in range(world_size)]
    assert len({len(batch.weight) for batch in batches}) == 1
    assert sum(batch.weight.sum() for batch in batches) == 10
    for batch in batches:
        assert [bool(key) for key in batch.keys] == batch.weight.astype(bool).tolist()


def test_a_batch_holds_what_its_records_hold(training):
    [batch] = take(EcgLoader(training, CONFIG, 1000), 1)
    for key, ecg, scale, record in zip(batch.keys, batch.ecg, batch.mv_per_lsb, batch.records, strict=True):
        _, expected, description = training.sample(key)
        assert np.array_equal(ecg, expected)
        assert record == description
        np.testing.assert_allclose(scale, description["mv_per_lsb"], rtol=1e-6)


def test_another_start_goes_on_where_the_state_says(training):
    loader = EcgLoader(training, CONFIG, 1000)
    batches = take(loader, 12)
    for done in (1, loader.batches, loader.batches + 1):
        state = loader.order.state(batches[done - 1].position)
        resumed = EcgLoader(training, CONFIG, 1000, start=loader.order.restore(state))
        assert [batch.keys for batch in take(resumed, 12 - done)] == [batch.keys for batch in batches[done:]]


def test_records_are_cut_or_padded_to_the_length_asked_for(training):
    [short], [long] = (take(EcgLoader(training, CONFIG, samples), 1) for samples in (400, 1300))
    assert np.array_equal(short.ecg, long.ecg[:, :, :400])
    assert np.all(long.ecg[:, :, 1000:] == INVALID)


def test_the_reading_thread_ends_with_the_iterator(training):
    import threading

    before = threading.active_count()
    take(EcgLoader(training, CONFIG, 1000), 2)
    assert threading.active_count() == before


def test_a_real_s3_server_gives_the_same_batches(simulated_folder, training, s3):
    build(PtbXl(simulated_folder, 100), f"{s3}/set", BuildOptions(records_per_shard=16))
    remote = ShardSet.open(f"{s3}/set").select("train")
    there, here = (take(EcgLoader(data, CONFIG, 1000), 8) for data in (remote, training))
    assert [batch.keys for batch in there] == [batch.keys for batch in here]
    assert all(np.array_equal(a.ecg, b.ecg) for a, b in zip(there, here, strict=True))


def test_a_shard_that_is_not_the_indexs_is_named(simulated_folder, tmp_path):
    uri = str(tmp_path / "set")
    build(PtbXl(simulated_folder, 100), uri, BuildOptions(records_per_shard=16))
    data = ShardSet.open(uri).select("train")
    first, second = tmp_path / "set" / "train-000000.tar", tmp_path / "set" / "train-000001.tar"
    first.write_bytes(second.read_bytes())
    with pytest.raises(ShardFormatError, match=r"train-000000.tar"):
        take(EcgLoader(data, CONFIG, 1000), 8)


def test_a_shard_cut_short_is_named(simulated_folder, tmp_path):
    uri = str(tmp_path / "set")
    build(PtbXl(simulated_folder, 100), uri, BuildOptions(records_per_shard=16))
    data = ShardSet.open(uri).select("train")
    shard = tmp_path / "set" / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:50_000])
    with pytest.raises(StorageError, match=r"train-000000.tar: expected \d+ bytes from byte \d+, found \d+"):
        take(EcgLoader(data, CONFIG, 1000), 8)


def test_a_stage_at_another_rate_than_its_shards_is_refused(training):
    with pytest.raises(DatasetError, match=r"sampled at 100 Hz, stage coca takes 500 Hz; build the shards at 500 Hz"):
        training.require_rate(500, "coca")


def test_a_split_that_is_empty_says_what_there_is(training):
    with pytest.raises(DatasetError, match=r"split 'future' is empty \(found test \d+, train \d+, val \d+\)"):
        training.select("future")


def test_the_position_after_the_last_batch_is_the_next_epochs_first(training):
    loader = EcgLoader(training, CONFIG, 1000)
    positions = loader.order.positions(Position(0, loader.batches))
    assert next(positions) == Position(1, 0)
