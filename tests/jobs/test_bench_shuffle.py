"""What the benchmark of the sample order counts, on orders whose mixing is known; its figures are read, not asserted."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.bench.shuffle import (
    Corpus,
    epoch_batches,
    group_sizes,
    main,
    mimic_like,
    mixing,
    ordered,
    permuted,
    ptb_xl_like,
    read_ahead_mb,
)
from shards.identity import Identity
from shards.order import Order, OrderConfig, Part

SMALL = Corpus("small", np.arange(3000) // 100, np.arange(3000) // 3)
"""3,000 samples in 30 shards, three of each patient side by side."""


def test_an_unshuffled_order_of_one_lane_keeps_places_shards_and_companions():
    config = OrderConfig(global_batch=50, lanes=1, shuffle=False)
    found = mixing(SMALL, ordered(SMALL, config, epochs=2))
    assert found.index_correlation == pytest.approx(1)
    assert found.epoch_correlation == pytest.approx(1)
    assert (found.shards, found.same_shard) == (1, 1)
    assert (found.met_again, found.none_again) == (49, 0)


def test_a_full_permutation_keeps_nothing():
    found = mixing(SMALL, permuted(SMALL, 50, epochs=4))
    assert found.index_correlation < 0.06
    assert found.epoch_correlation < 0.06
    assert found.same_shard == pytest.approx(99 / 2999, rel=0.1)
    assert found.patient_pairs == pytest.approx(50 * 49 / 2 * 2 / 2999, rel=0.25)
    assert found.met_again == pytest.approx(49 * 49 / 2999, rel=0.1)


def test_patients_and_their_pairs_are_counted_in_each_batch():
    corpus = Corpus("four patients", np.zeros(8, np.int64), np.array([0, 0, 0, 1, 1, 2, 3, 3]))
    batches = np.array([[4, 5, 6, 7], [0, 1, 2, 3]])
    found = mixing(corpus, [batches, batches])
    assert found.patients == (2 + 3) / 8
    assert found.patient_pairs == (3 + 1) / 2
    assert sorted(group_sizes(batches, corpus.patient_of)) == [1, 1, 1, 2, 3]


def test_samples_that_the_next_epoch_leaves_out_are_met_by_none_there():
    corpus = Corpus("six", np.zeros(6, np.int64), np.arange(6))
    found = mixing(corpus, [np.array([[0, 1], [4, 5]]), np.array([[0, 1], [2, 3]])])
    assert found.met_again == 0.5
    assert found.none_again == 0.5


@settings(deadline=None, max_examples=30)
@given(
    samples=st.integers(64, 900),
    config=st.builds(
        OrderConfig, global_batch=st.integers(2, 16), lanes=st.integers(1, 20), block=st.integers(1, 70), seed=st.integers(0, 3)
    ),
    epoch=st.integers(0, 2),
)
def test_an_epoch_is_measured_as_it_is_read(samples, config, epoch):
    order = Order([Part(np.arange(samples) // 60, samples)], config, Identity(""))
    read = [order.batch_samples(epoch, batch) for batch in range(order.full_batches)]
    np.testing.assert_array_equal(epoch_batches(order, epoch), read)


@pytest.mark.parametrize(
    ("corpus", "samples", "patients", "most"), [(mimic_like(), 800_035, 161_352, 260), (ptb_xl_like(), 21_799, 18_869, 10)]
)
def test_a_made_up_corpus_has_the_published_samples_and_patients(corpus, samples, patients, most):
    ecgs = np.bincount(corpus.patient_of)
    assert (len(corpus.shard_of), len(corpus.patient_of), len(ecgs)) == (samples, samples, patients)
    assert ecgs.min() == 1
    assert ecgs.max() <= most
    assert corpus.shard_of[-1] == (samples - 1) // 512


def test_the_share_of_lone_ecgs_is_that_of_mimic_iv_ecg():
    ecgs = np.bincount(mimic_like().patient_of)
    assert np.count_nonzero(ecgs == 1) / ecgs.sum() == pytest.approx(0.072, abs=0.001)


def test_memory_grows_with_lanes_and_block_and_is_shared_by_the_ranks():
    corpus = ptb_xl_like()
    one = read_ahead_mb(corpus, OrderConfig(lanes=8, block=64), world_size=1)
    assert read_ahead_mb(corpus, OrderConfig(lanes=16, block=64), world_size=1) == pytest.approx(2 * one)
    assert read_ahead_mb(corpus, OrderConfig(lanes=8, block=128), world_size=1) == pytest.approx(2 * one)
    assert read_ahead_mb(corpus, OrderConfig(lanes=8, block=64), world_size=8) == pytest.approx(one / 8)


def test_the_benchmark_writes_a_row_for_each_figure(tmp_path, capsys):
    assert main(["--quick", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {tuple(row) for row in rows} == {("name", "value", "unit", "against", "ratio", "aim")}
    assert len({row["name"] for row in rows}) == len(rows) == 20
    assert "permutation" in capsys.readouterr().out
