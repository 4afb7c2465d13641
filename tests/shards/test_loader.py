"""Streaming: the samples of the order, whoever reads them, from a file system or a real S3 server."""

import itertools

import numpy as np
import pytest

from shards.build import BuildOptions, build
from shards.dataset import DatasetError, ShardSet
from shards.loader import EcgLoader, EcgWindow, LoaderConfig
from shards.order import OrderConfig, OrderError, Position
from shards.reader import SampleReader
from shards.record import INVALID
from shards.selection import Filter
from shards.sources.ptb_xl import PtbXl
from shards.storage import StorageError
from shards.tar import ShardFormatError
from tests.shards.reading import expected_keys, take
from tests.shards.small_sets import build_small_set

CONFIG = LoaderConfig(OrderConfig(global_batch=10, lanes=4, block=8))
WINDOW = EcgWindow(10)


@pytest.fixture(scope="module")
def training(simulated_shards):
    return ShardSet.open(simulated_shards).select("train")


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_any_number_of_ranks_sees_the_same_global_batches(training, world_size):
    loaders = [EcgLoader(training, CONFIG, WINDOW, rank, world_size) for rank in range(world_size)]
    count = loaders[0].batches + 2
    seen = [take(loader, count) for loader in loaders]
    keys = training.index["key"].to_pylist()
    for number in range(count):
        epoch, batch = divmod(number, loaders[0].batches)
        expected = [keys[i] for i in loaders[0].order.batch_samples(epoch, batch)]
        assert [key for rank in seen for key in rank[number].keys if key] == expected


@pytest.mark.parametrize("world_size", [3, 7])
def test_short_ranks_are_padded_with_weight_zero(training, world_size):
    batches = [take(EcgLoader(training, CONFIG, WINDOW, rank, world_size), 1)[0] for rank in range(world_size)]
    assert len({len(batch.weight) for batch in batches}) == 1
    assert sum(batch.weight.sum() for batch in batches) == 10
    for batch in batches:
        assert [bool(key) for key in batch.keys] == batch.weight.astype(bool).tolist()


def test_a_batch_holds_what_its_records_hold(training):
    [batch] = take(EcgLoader(training, CONFIG, WINDOW), 1)
    for key, ecg, scale, record in zip(batch.keys, batch.ecg, batch.mv_per_lsb, batch.records, strict=True):
        _, expected, description = training.sample(key)
        assert np.array_equal(ecg, expected)
        assert record == description
        np.testing.assert_allclose(scale, description["mv_per_lsb"], rtol=1e-6)


def test_another_start_goes_on_where_the_state_says(training):
    loader = EcgLoader(training, CONFIG, WINDOW)
    batches = take(loader, 12)
    for done in (1, loader.batches, loader.batches + 1):
        state = loader.order.state(batches[done - 1].position)
        resumed = EcgLoader(training, CONFIG, WINDOW, start=loader.order.restore(state))
        assert [batch.keys for batch in take(resumed, 12 - done)] == [batch.keys for batch in batches[done:]]


def test_records_are_cut_or_padded_to_the_length_asked_for(training):
    [short], [long] = (take(EcgLoader(training, CONFIG, EcgWindow(seconds)), 1) for seconds in (4, 13))
    assert np.array_equal(short.ecg, long.ecg[:, :, :400])
    assert np.all(long.ecg[:, :, 1000:] == INVALID)


def test_the_reading_thread_ends_with_the_iterator(training):
    import threading

    before = threading.active_count()
    take(EcgLoader(training, CONFIG, WINDOW), 2)
    assert threading.active_count() == before


def test_a_real_s3_server_gives_the_same_batches(simulated_folder, training, s3):
    build(PtbXl(simulated_folder, 100), f"{s3}/set", BuildOptions(records_per_shard=16))
    remote = ShardSet.open(f"{s3}/set").select("train")
    there, here = (take(EcgLoader(data, CONFIG, WINDOW), 8) for data in (remote, training))
    assert [batch.keys for batch in there] == [batch.keys for batch in here]
    assert all(np.array_equal(a.ecg, b.ecg) for a, b in zip(there, here, strict=True))


def test_a_shard_that_is_not_the_indexs_is_named(simulated_folder, tmp_path):
    uri = str(tmp_path / "set")
    build(PtbXl(simulated_folder, 100), uri, BuildOptions(records_per_shard=16))
    data = ShardSet.open(uri).select("train")
    first, second = tmp_path / "set" / "train-000000.tar", tmp_path / "set" / "train-000001.tar"
    first.write_bytes(second.read_bytes())
    with pytest.raises(ShardFormatError, match=r"train-000000.tar"):
        take(EcgLoader(data, CONFIG, WINDOW), 8)


def test_a_shard_cut_short_is_named(simulated_folder, tmp_path):
    uri = str(tmp_path / "set")
    build(PtbXl(simulated_folder, 100), uri, BuildOptions(records_per_shard=16))
    data = ShardSet.open(uri).select("train")
    shard = tmp_path / "set" / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:50_000])
    with pytest.raises(StorageError, match=r"train-000000.tar: expected \d+ bytes from byte \d+, found \d+"):
        take(EcgLoader(data, CONFIG, WINDOW), 8)


def test_a_stage_at_another_rate_than_its_shards_is_refused(training):
    with pytest.raises(DatasetError, match=r"sampled at 100 Hz, stage coca takes 500 Hz; build the shards at 500 Hz"):
        training.require_rate(500, "coca")


def test_a_split_that_is_empty_says_what_there_is(training):
    with pytest.raises(DatasetError, match=r"split 'future' is empty \(found test \d+, train \d+, val \d+\)"):
        training.select("future")


def test_the_position_after_the_last_batch_is_the_next_epochs_first(training):
    loader = EcgLoader(training, CONFIG, WINDOW)
    positions = loader.order.positions(Position(0, loader.batches))
    assert next(positions) == Position(1, 0)


def test_windows_lie_where_they_are_asked_for_and_random_ones_depend_on_the_sample_alone(training):
    def windows(crop, rank=0, world_size=1):
        loader = EcgLoader(training, CONFIG, EcgWindow(2, crop), rank, world_size)
        return {key: ecg for batch in take(loader, 3) for key, ecg in zip(batch.keys, batch.ecg, strict=True) if key}

    whole = {key: training.sample(key)[1] for key in windows("start")}
    starts = set()
    for crop in ("start", "centre", "random"):
        for key, ecg in windows(crop).items():
            places = [start for start in range(801) if np.array_equal(ecg[1], whole[key][1, start : start + 200])]
            assert places == [0] if crop == "start" else places == [400] if crop == "centre" else len(places) == 1
            starts.update(places if crop == "random" else [])
    assert len(starts) > 10
    alone = windows("random")
    for rank in range(3):
        for key, ecg in windows("random", rank, 3).items():
            assert np.array_equal(ecg, alone[key])


def test_random_windows_differ_between_epochs(training):
    loader = EcgLoader(training, CONFIG, EcgWindow(2, "random"))
    first, second = {}, {}
    for number, batch in enumerate(take(loader, 2 * loader.batches)):
        (first if number < loader.batches else second).update(zip(batch.keys, batch.draw.tolist(), strict=True))
    both = first.keys() & second.keys()
    assert len(both) > 20
    assert all(first[key] != second[key] for key in both)


def test_millivolts_are_counts_times_scale_and_gaps_are_not_numbers(tmp_path):
    data = ShardSet.open(build_small_set(tmp_path / "set", 30, 10, rates=(100.0, 50.0), longest=90)).select("train")
    config = LoaderConfig(OrderConfig(global_batch=30, lanes=1, drop_tail=False))
    [counts], [millivolts] = (
        take(EcgLoader(data, config, EcgWindow(0.7), world_size=2, form=form), 1) for form in ("counts", "millivolts")
    )
    expected = np.where(counts.ecg == INVALID, np.nan, counts.ecg * counts.mv_per_lsb[:, :, None])
    np.testing.assert_allclose(millivolts.ecg, expected, rtol=1e-6)
    assert np.isnan(expected).any()
    assert counts.has_invalid
    # As many samples as last 0.7 s at the record's own rate, and no more than it has.
    assert counts.fs_hz.tolist() == [record["fs_hz"] for record in counts.records]
    for key, length, rate in zip(counts.keys, counts.length, counts.fs_hz, strict=True):
        assert length == min(round(0.7 * rate), data.sample(key)[1].shape[1])


def test_a_batch_says_who_is_of_one_patient_and_who_has_the_same_report(tmp_path):
    data = ShardSet.open(build_small_set(tmp_path / "set", 40, 10)).select("train")
    config = LoaderConfig(OrderConfig(global_batch=40, lanes=1, drop_tail=False))
    batch, padded = take(EcgLoader(data, config, WINDOW), 1)[0], take(EcgLoader(data, config, WINDOW, 40, 41), 1)[0]
    for a, b in itertools.combinations(range(40), 2):
        one, other = batch.records[a], batch.records[b]
        assert (batch.patient[a] == batch.patient[b]) == (one["patient_id"] == other["patient_id"])
        same_text = one["report"] is not None and one["report"] == other["report"]
        assert (batch.text[a] == batch.text[b] != 0) == same_text
    assert not padded.weight.any() or padded.patient.all()
    empty = take(EcgLoader(data, config, WINDOW, 0, 41), 1)[0]
    assert (empty.weight.tolist(), empty.patient.tolist(), empty.length.tolist(), empty.records) == ([0], [0], [0], [{}])


def test_memory_of_a_batch_is_used_again_only_when_nobody_holds_it(training):
    loader = EcgLoader(training, CONFIG, WINDOW)
    batches = iter(loader)
    kept = [next(batches) for _ in range(4)]
    row, copies = kept[0].ecg[2], [batch.ecg.copy() for batch in kept]
    for _ in range(10):
        next(batches)
    assert all(np.array_equal(batch.ecg, copy) for batch, copy in zip(kept, copies, strict=True))
    del kept
    for _ in range(10):
        next(batches)
    batches.close()
    assert np.array_equal(row, copies[0][2])


@pytest.mark.parametrize(
    ("only", "passes"),
    [
        (Filter(labels=["AFIB"]), lambda record: record["labels"]["AFIB"] == 1),
        (Filter(without_labels=["AFIB"]), lambda record: record["labels"]["AFIB"] == 0),
        (Filter(min_text_length=1), lambda record: record["report"] is not None),
        (Filter(sources=["small"], max_flat_leads=0), lambda record: True),
    ],
)
def test_filters_say_which_samples_are_read(tmp_path, only, passes):
    whole = ShardSet.open(build_small_set(tmp_path / "set", 60, 10))
    data = whole.select("train", only)
    config = LoaderConfig(OrderConfig(global_batch=5, lanes=2, block=8, drop_tail=False))
    loader = EcgLoader(data, config, WINDOW)
    seen = sorted(key for batch in take(loader, loader.batches) for key in batch.keys if key)
    assert seen == sorted(key for key, record in whole.descriptions() if passes(record))
    other = EcgLoader(whole.select("train", Filter(max_peak_mv=1000)), config, WINDOW)
    with pytest.raises(OrderError, match="selection 'split train; max_peak_mv 1000' then, 'split train; "):
        loader.order.restore(other.order.state(Position(0, 1)))


@pytest.mark.parametrize(
    ("only", "sentence"),
    [
        (Filter(labels=["AFIBB"]), "data.filter.labels: no 'AFIBB' here; did you mean AFIB"),
        (Filter(sources=["mimic"]), "data.filter.sources: no 'mimic' here; did you mean small"),
        (Filter(max_peak_mv=0.0), r"data.filter \(max_peak_mv 0.0\) leaves none of 20 samples; loosen it"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(tmp_path, only, sentence):
    whole = ShardSet.open(build_small_set(tmp_path / "set", 20, 10))
    with pytest.raises(DatasetError, match=sentence):
        whole.select("train", only)


def test_damaged_samples_up_to_the_tolerance_are_left_out_and_named(tmp_path):
    uri = build_small_set(tmp_path / "set", 40, 10)
    data = ShardSet.open(uri).select("train")
    rows = data.index.to_pylist()
    hurt = {rows[3]["key"], rows[25]["key"]}
    for row in (rows[3], rows[25]):
        with (tmp_path / "set" / row["shard"]).open("r+b") as shard:
            shard.seek(row["offset"] + 700)
            shard.write(b"damaged!")
    order = OrderConfig(global_batch=8, lanes=2, block=8)
    healthy = EcgLoader(data, LoaderConfig(order), WINDOW)
    expected = expected_keys(healthy, 5)
    for world_size in (1, 3):
        loaders = [EcgLoader(data, LoaderConfig(order, tolerated_damage=2), WINDOW, r, world_size) for r in range(world_size)]
        ranks = [take(loader, 5) for loader in loaders]
        seen = [[key for share in shares for key in share.keys if key] for shares in zip(*ranks, strict=True)]
        assert seen == [[key for key in batch if key not in hurt] for batch in expected]
        sentences = [sentence for batches in ranks for batch in batches for sentence in batch.damaged]
        assert len(sentences) == 2
        assert all(any(key in sentence for key in hurt) and "train-" in sentence for sentence in sentences)
        assert sum(int(batch.weight.sum()) for batches in ranks for batch in batches) == 38
    with pytest.raises(ShardFormatError, match="the bytes of sample small-"):
        take(EcgLoader(data, LoaderConfig(order, tolerated_damage=1), WINDOW), 5)


def test_a_shard_that_is_gone_is_damage_too(tmp_path):
    uri = build_small_set(tmp_path / "set", 40, 10)
    data = ShardSet.open(uri).select("train")
    (tmp_path / "set" / "train-000002.tar").unlink()
    order = OrderConfig(global_batch=8, lanes=2, block=8)
    with pytest.raises(ShardFormatError, match="train-000002.tar: no such object"):
        take(EcgLoader(data, LoaderConfig(order), WINDOW), 5)
    batches = take(EcgLoader(data, LoaderConfig(order, tolerated_damage=10), WINDOW), 5)
    assert sum(len(batch.damaged) for batch in batches) == 10
    assert sum(batch.weight.sum() for batch in batches) == 30


@pytest.mark.parametrize("world_size", [1, 3])
def test_so_many_batches_read_what_they_need_and_no_more(training, monkeypatch, world_size):
    fetched = []
    fetch = SampleReader.fetch
    monkeypatch.setattr(SampleReader, "fetch", lambda self, rows: fetched.extend(rows.tolist()) or fetch(self, rows))
    order = OrderConfig(global_batch=10, lanes=4, block=8, drop_tail=False)
    for rank in range(world_size):
        loader = EcgLoader(training, LoaderConfig(order), WINDOW, rank, world_size)
        assert len(list(loader.take(loader.batches))) == loader.batches
    assert sorted(fetched) == list(range(training.index.num_rows))
