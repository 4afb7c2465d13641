"""The laws of the order: every sample as often as it should be, the same global batches for any world, any restart."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.draws import permutation, random_bits
from shards.identity import Identity
from shards.order import PADDING, Order, OrderConfig, OrderError, Part, Position, rank_slice, weave

IDENTITY = Identity("d" * 64, "split train", {"train-000000.tar": "a" * 64, "train-000001.tar": "b" * 64})


def part(lengths, taken=None):
    shard_of = np.repeat(np.arange(len(lengths)), lengths)
    return Part(shard_of, len(shard_of) if taken is None else taken)


def order_of(lengths, **config):
    return Order([part(lengths)], OrderConfig(**config), IDENTITY)


@st.composite
def configs(draw, drop_tail=st.booleans()):
    return OrderConfig(
        global_batch=draw(st.integers(1, 17)),
        seed=draw(st.integers(0, 5)),
        lanes=draw(st.integers(1, 9)),
        block=draw(st.integers(1, 20)),
        shuffle=draw(st.booleans()),
        drop_tail=draw(drop_tail),
    )


shards = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@st.composite
def orders(draw, parts=st.just(1)):
    """Orders of one data set or a mixture, of any sizes; the tail is kept, so that nothing may be missing."""
    lengths = [draw(shards) for _ in range(draw(parts))]
    config = draw(configs(drop_tail=st.just(False)))
    taken = [draw(st.integers(1, 90)) if len(lengths) > 1 else None for _ in lengths]
    return Order([part(*each) for each in zip(lengths, taken, strict=True)], config, IDENTITY)


def epoch_of(order, epoch):
    return np.concatenate([order.batch_samples(epoch, batch) for batch in range(order.batches)])


@settings(max_examples=150, deadline=None)
@given(orders(), st.integers(0, 3))
def test_an_epoch_holds_every_sample_once(order, epoch):
    samples = epoch_of(order, epoch)
    assert sorted(samples[samples != PADDING]) == list(range(order.samples))
    assert len(samples) == order.batches * order.config.global_batch


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(st.tuples(shards, st.integers(1, 90)), min_size=2, max_size=4),
    config=configs(drop_tail=st.just(False)),
    epochs=st.integers(1, 4),
)
def test_a_mixture_takes_of_each_part_what_is_said_and_no_sample_twice_before_each_was_used(parts, config, epochs):
    order = Order([part(lengths, taken) for lengths, taken in parts], config, IDENTITY)
    used = [epoch_of(order, epoch) for epoch in range(epochs)]
    first = 0
    for lengths, taken in parts:
        last = first + sum(lengths)
        here = [samples[(first <= samples) & (samples < last)] for samples in used]
        assert [len(samples) for samples in here] == [taken] * epochs
        often = np.bincount(np.concatenate(here) - first, minlength=last - first)
        times, more = divmod(taken * epochs, last - first)
        assert sorted(often) == [times] * (last - first - more) + [times + 1] * more
        first = last


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(lambda taken: sum(taken) > 0))
def test_parts_are_woven_evenly(taken):
    """Of any first p places, each part has its share to within one for each part beside it."""
    number, place = weave(np.arange(sum(taken)), taken)
    for index, count in enumerate(taken):
        here = number == index
        assert place[here].tolist() == list(range(count))
        so_far = np.cumsum(here)
        even = np.arange(1, sum(taken) + 1) * count / sum(taken)
        assert np.all(np.abs(so_far - even) < len(taken))


@settings(max_examples=150, deadline=None)
@given(orders(parts=st.integers(1, 3)), st.integers(1, 1024), st.data())
def test_ranks_share_each_batch_without_gap_or_overlap(order, world_size, data):
    size = order.config.global_batch
    slices = [rank_slice(size, rank, world_size) for rank in range(world_size)]
    assert [place for start, stop in slices for place in range(start, stop)] == list(range(size))
    assert max(stop - start for start, stop in slices) == -(-size // world_size)
    batch, epoch = data.draw(st.integers(0, order.batches - 1)), data.draw(st.integers(0, 3))
    shares = [order.batch_samples(epoch, batch, *part) for part in slices]
    assert np.array_equal(np.concatenate(shares), order.batch_samples(epoch, batch))


@settings(max_examples=150, deadline=None)
@given(orders(parts=st.integers(1, 3)), st.integers(1, 40), st.data())
def test_what_ranks_want_of_a_block_is_what_they_use_of_it(order, world_size, data):
    """From any batch on: nothing is fetched for nothing, nothing is missing."""
    from_batch = data.draw(st.integers(0, order.batches - 1))
    used = Counter()
    for rank in range(world_size):
        part = rank_slice(order.config.global_batch, rank, world_size)
        blocks = {}
        for batch in range(from_batch, order.batches):
            for segment in order.segments(batch, *part):
                places = blocks.setdefault((segment.lane, segment.block), [])
                places += range(segment.start, segment.stop)
        for (lane, number), places in blocks.items():
            assert np.flatnonzero(order.wanted(lane, number, *part, from_batch)).tolist() == sorted(places)
            used.update((lane, number, place) for place in places)
    assert all(count == 1 for count in used.values())
    expected = np.concatenate([order.batch_samples(0, batch) for batch in range(from_batch, order.batches)])
    assert len(used) == np.count_nonzero(expected != PADDING)


@settings(max_examples=100, deadline=None)
@given(orders(parts=st.integers(1, 3)), st.integers(0, 3), st.data())
def test_going_on_from_a_state_is_as_if_nothing_had_happened(order, epoch, data):
    done = data.draw(st.integers(0, order.batches))
    resumed = order.restore(order.state(Position(epoch, done)))
    positions = order.positions(resumed)
    expected = order.positions(Position(epoch, 0))
    for _ in range(done):
        next(expected)
    assert [next(positions) for _ in range(order.batches + 2)] == [next(expected) for _ in range(order.batches + 2)]


def test_dropping_the_tail_leaves_full_batches_alone():
    order = order_of([7] * 5, global_batch=8, lanes=2, block=4)
    samples = epoch_of(order, 0)
    assert order.batches == 4
    assert PADDING not in samples
    assert len(set(samples)) == 32


def test_epochs_differ_and_repeat():
    order = order_of([20] * 6, global_batch=10)
    assert np.array_equal(epoch_of(order, 1), epoch_of(order, 1))
    assert not np.array_equal(epoch_of(order, 0), epoch_of(order, 1))


def test_without_shuffling_the_first_lane_begins_at_the_beginning():
    order = order_of([8, 8], global_batch=4, lanes=1, shuffle=False)
    assert epoch_of(order, 0).tolist() == list(range(16))


def test_a_rank_that_owns_its_lanes_reads_only_its_share():
    """With W dividing the lanes, a rank's blocks are of its own lanes, which are contiguous parts of the sequence."""
    order = order_of([8] * 16, global_batch=16, lanes=4, block=8)
    for rank in range(2):
        part = rank_slice(16, rank, 2)
        lanes = {segment.lane for batch in range(order.batches) for segment in order.segments(batch, *part)}
        assert lanes == {2 * rank, 2 * rank + 1}


def test_more_ranks_than_shards_is_no_problem():
    order = order_of([50], global_batch=12, lanes=8)
    shares = [order.batch_samples(0, 1, *rank_slice(12, rank, 64)) for rank in range(64)]
    assert sorted(np.concatenate(shares)) == sorted(order.batch_samples(0, 1))


def test_batches_mix_shards():
    """A batch of 32 from 32 shards should not be fed by one or two of them, as a sorted corpus would be."""
    order = order_of([64] * 32, global_batch=32, lanes=8, block=128)
    shards_in_batch = [len(set(order.batch_samples(0, batch) // 64)) for batch in range(order.batches)]
    assert np.median(shards_in_batch) >= 12


def test_a_share_of_a_mixture_is_in_every_batch():
    order = Order([part([90] * 10), part([500], taken=100)], OrderConfig(global_batch=50, lanes=4, block=64), IDENTITY)
    replayed = [np.count_nonzero(order.batch_samples(0, batch) >= 900) for batch in range(order.batches)]
    assert sum(replayed) == 100
    assert min(replayed) >= 1


def test_the_order_is_the_same_for_ever():
    """Written down once: another version of any library, or of this one, that gives other numbers breaks resumed runs."""
    order = Order([part([5, 7, 4]), part([9], taken=4)], OrderConfig(global_batch=6, lanes=2, block=4, seed=3), IDENTITY)
    assert [order.batch_samples(1, batch).tolist() for batch in range(3)] == [
        [5, 7, 6, 13, 22, 12],
        [20, 21, 10, 14, 1, 0],
        [8, 9, 11, 15, 23, 2],
    ]
    assert random_bits(np.arange(2), "draw", 1, 2).tolist() == [12118960090980519338, 18203759600359004667]
    assert permutation(6, "block", 0).tolist() == [1, 0, 5, 2, 3, 4]


def test_the_last_place_of_a_long_epoch_costs_no_more_than_the_first():
    """Counted in samples that are looked at, not in seconds."""
    order = order_of([1000] * 800, global_batch=64, lanes=8)
    looked_at = []
    sequence = order.sequence
    order.sequence = lambda epoch, start, stop: looked_at.append(stop - start) or sequence(epoch, start, stop)
    order.batch_samples(0, 0)
    order.batch_samples(0, order.batches - 1)
    assert len(looked_at) == 16
    assert sum(looked_at[8:]) <= sum(looked_at[:8])


def test_a_state_of_another_index_is_refused():
    order = order_of([10], global_batch=2)
    with pytest.raises(OrderError, match="index_sha256 'e+' then, 'd+' now"):
        order.restore({**order.state(Position(0, 1)), "index_sha256": "e" * 64})


def test_the_shards_that_differ_are_named():
    order = order_of([10], global_batch=2)
    rebuilt = Order(
        [part([10])], order.config, Identity("e" * 64, "split train", {**IDENTITY.shards, "train-000001.tar": "c" * 64})
    )
    with pytest.raises(OrderError, match=r"order of samples \(train-000001.tar differ; index_sha256 'd+' then, 'e+' now\)"):
        rebuilt.restore(order.state(Position(0, 1)))
    longer = Order(
        [part([10])], order.config, Identity("e" * 64, "split train", {**IDENTITY.shards, "train-000002.tar": "c" * 64})
    )
    with pytest.raises(OrderError, match=r"\(2 shards then, 3 now; index_sha256"):
        longer.restore(order.state(Position(0, 1)))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seed": 5}, "seed 5 then, 0 now"),
        ({"selection": "split test"}, "selection 'split test' then, 'split train' now"),
        ({"drop_tail": False}, "drop_tail False then, True now"),
        ({"order_version": 1}, "order_version 1 then, 2 now"),
    ],
)
def test_a_state_of_another_order_is_refused(changed, sentence):
    order = order_of([10], global_batch=2)
    with pytest.raises(OrderError, match=sentence):
        order.restore({**order.state(Position(0, 1)), **changed})


def test_too_few_samples_for_one_batch_is_said():
    with pytest.raises(OrderError, match="10 samples do not fill one global batch of 64"):
        order_of([10], global_batch=64)
