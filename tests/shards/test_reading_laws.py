"""What is read is what the order says, whoever reads it and however often it is stopped: laws over real files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.dataset import ShardSet
from shards.loader import EcgLoader, EcgWindow, LoaderConfig
from shards.mixture import Mixture, Proportion
from shards.order import OrderConfig
from tests.shards.reading import expected_keys, take
from tests.shards.small_sets import build_small_set

WINDOW = EcgWindow(0.4)
SIZES = {"one": (1, 1), "few": (13, 5), "some": (60, 7), "many": (150, 40)}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Data sets of several sizes, by name."""
    folder = tmp_path_factory.mktemp("sets")
    made = {name: build_small_set(folder / name, *size, name=name) for name, size in SIZES.items()}
    return {name: ShardSet.open(uri).select("train") for name, uri in made.items()}


@st.composite
def readings(draw):
    """Which data sets, in which order: names, repeats, and the loader's configuration."""
    names = draw(st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=3, unique=True))
    repeats = [draw(st.sampled_from([0.3, 1.0, 2.0, 2.5])) if len(names) > 1 else 1.0 for _ in names]
    order = OrderConfig(
        global_batch=draw(st.integers(1, 16)),
        seed=draw(st.integers(0, 3)),
        lanes=draw(st.integers(1, 6)),
        block=draw(st.integers(1, 24)),
        shuffle=draw(st.booleans()),
        drop_tail=False,
    )
    # `connections` are the workers of a loader.
    return names, repeats, LoaderConfig(order, ahead=draw(st.integers(1, 3)), connections=draw(st.integers(1, 5)))


def mixture_of(sets, names, repeats):
    return Mixture(tuple(sets[name] for name in names), tuple(Proportion(value) for value in repeats))


@settings(max_examples=40, deadline=None)
@given(reading=readings(), data=st.data())
def test_killed_and_resumed_with_other_ranks_every_global_batch_is_as_undisturbed(sets, reading, data):
    names, repeats, config = reading
    mixture = mixture_of(sets, names, repeats)
    undisturbed = EcgLoader(mixture, config, WINDOW)
    steps = min(undisturbed.batches + 3, 20)
    expected = expected_keys(undisturbed, steps)
    seen, state = [], undisturbed.order.state(undisturbed.start)
    while len(seen) < steps:
        world_size = data.draw(st.integers(1, 5))
        count = data.draw(st.integers(1, steps - len(seen)))
        loaders = [EcgLoader(mixture, config, WINDOW, rank, world_size) for rank in range(world_size)]
        for loader in loaders:
            loader.start = loader.order.restore(state)
        ranks = [take(loader, count) for loader in loaders]
        for shares in zip(*ranks, strict=True):
            assert len({len(share.weight) for share in shares}) == 1
            assert len({share.position for share in shares}) == 1
            seen.append([key for share in shares for key in share.keys if key])
        state = loaders[0].order.state(ranks[0][-1].position)
    assert seen == expected


@settings(max_examples=25, deadline=None)
@given(reading=readings(), world_size=st.integers(1, 4))
def test_each_key_comes_with_its_own_signal_and_description(sets, reading, world_size):
    names, repeats, config = reading
    mixture = mixture_of(sets, names, repeats)
    for rank in range(world_size):
        for batch in take(EcgLoader(mixture, config, WINDOW, rank, world_size), 2):
            for place in np.flatnonzero(batch.weight):
                name = batch.records[place]["source"]
                _, signal, description = sets[name].sample(batch.keys[place])
                assert np.array_equal(batch.ecg[place], signal)
                assert batch.records[place] == description
                np.testing.assert_allclose(batch.mv_per_lsb[place], description["mv_per_lsb"], rtol=1e-6)


@pytest.mark.parametrize("world_size", [8, 97, 1024])
def test_many_more_ranks_than_samples_in_a_batch(sets, world_size):
    """Most ranks have nothing to read, and still take every step."""
    config = LoaderConfig(OrderConfig(global_batch=7, lanes=3, block=8))
    alone = EcgLoader(sets["some"], config, WINDOW)
    seen = [[] for _ in range(3)]
    for rank in range(0, world_size):
        loader = EcgLoader(sets["some"], config, WINDOW, rank, world_size)
        if world_size > 100 and np.diff(loader._slice) == 0 and rank % 100:
            continue
        for number, batch in enumerate(take(loader, 3)):
            assert batch.weight.shape == (1,)
            seen[number] += [key for key in batch.keys if key]
    assert seen == expected_keys(alone, 3)
