"""The laws of the order: every sample once, the same global batches for any world, any restart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.order import PADDING, Order, OrderConfig, OrderError, Position, rank_slice

DIGEST = "d" * 64


@st.composite
def orders(draw):
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    config = OrderConfig(
        global_batch=draw(st.integers(1, 17)),
        seed=draw(st.integers(0, 5)),
        lanes=draw(st.integers(1, 9)),
        block=draw(st.integers(1, 20)),
        shuffle=draw(st.booleans()),
        drop_tail=False,
    )
    return Order(np.repeat(np.arange(len(lengths)), lengths), config, DIGEST)


def epoch_of(order, epoch):
    return np.concatenate([order.batch_samples(epoch, batch) for batch in range(order.batches)])


@settings(max_examples=150, deadline=None)
@given(orders(), st.integers(0, 3))
def test_an_epoch_holds_every_sample_once(order, epoch):
    samples = epoch_of(order, epoch)
    assert sorted(samples[samples != PADDING]) == list(range(order.samples))
    assert len(samples) == order.batches * order.config.global_batch


@settings(max_examples=100, deadline=None)
@given(orders(), st.integers(1, 1024))
def test_ranks_share_each_batch_without_gap_or_overlap(order, world_size):
    size = order.config.global_batch
    slices = [rank_slice(size, rank, world_size) for rank in range(world_size)]
    assert [place for start, stop in slices for place in range(start, stop)] == list(range(size))
    assert max(stop - start for start, stop in slices) == -(-size // world_size)


@settings(max_examples=100, deadline=None)
@given(orders(), st.integers(0, 3), st.data())
def test_going_on_from_a_state_is_as_if_nothing_had_happened(order, epoch, data):
    done = data.draw(st.integers(0, order.batches))
    resumed = order.restore(order.state(Position(epoch, done)))
    positions = order.positions(resumed)
    expected = order.positions(Position(epoch, 0))
    for _ in range(done):
        next(expected)
    assert [next(positions) for _ in range(order.batches + 2)] == [next(expected) for _ in range(order.batches + 2)]


def test_dropping_the_tail_leaves_full_batches_alone():
    order = Order(np.repeat(np.arange(5), 7), OrderConfig(global_batch=8, lanes=2, block=4), DIGEST)
    samples = epoch_of(order, 0)
    assert order.batches == 4
    assert PADDING not in samples
    assert len(set(samples)) == 32


def test_epochs_differ_and_repeat():
    order = Order(np.repeat(np.arange(6), 20), OrderConfig(global_batch=10), DIGEST)
    assert np.array_equal(epoch_of(order, 1), epoch_of(order, 1))
    assert not np.array_equal(epoch_of(order, 0), epoch_of(order, 1))


def test_without_shuffling_the_first_lane_begins_at_the_beginning():
    order = Order(np.repeat(np.arange(2), 8), OrderConfig(global_batch=4, lanes=1, shuffle=False), DIGEST)
    assert epoch_of(order, 0).tolist() == list(range(16))


def test_a_rank_that_owns_its_lanes_reads_only_its_share():
    """With W dividing the lanes, the places of a rank lie in its own contiguous part of the sequence."""
    order = Order(np.repeat(np.arange(16), 8), OrderConfig(global_batch=16, lanes=4, block=8), DIGEST)
    for rank in range(2):
        part = slice(*rank_slice(16, rank, 2))
        places = np.concatenate([order.places(batch)[part] for batch in range(order.batches)])
        assert sorted(places) == list(range(rank * 64, rank * 64 + 64))


def test_batches_mix_shards():
    """A batch of 32 from 32 shards should not be fed by one or two of them, as a sorted corpus would be."""
    shard_of = np.repeat(np.arange(32), 64)
    order = Order(shard_of, OrderConfig(global_batch=32, lanes=8, block=128), DIGEST)
    shards_in_batch = [len(set(shard_of[order.batch_samples(0, batch)])) for batch in range(order.batches)]
    assert np.median(shards_in_batch) >= 12


def test_a_state_of_another_index_is_refused():
    order = Order(np.zeros(10, int), OrderConfig(global_batch=2), DIGEST)
    with pytest.raises(OrderError, match="index_sha256 'e+' then, 'd+' now"):
        order.restore({**order.state(Position(0, 1)), "index_sha256": "e" * 64})


def test_a_state_of_another_seed_is_refused():
    order = Order(np.zeros(10, int), OrderConfig(global_batch=2), DIGEST)
    with pytest.raises(OrderError, match="seed 5 then, 0 now"):
        order.restore({**order.state(Position(0, 1)), "seed": 5})


def test_too_few_samples_for_one_batch_is_said():
    with pytest.raises(OrderError, match="10 samples do not fill one global batch of 64"):
        Order(np.zeros(10, int), OrderConfig(global_batch=64), DIGEST)
