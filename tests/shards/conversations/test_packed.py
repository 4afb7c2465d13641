"""Packs of conversations: each conversation once an epoch, in sequences that fit, the same for any world and after a resume."""

import numpy as np
import pytest

from shards.conversations.packed import PackedLoader
from shards.dataset import DatasetError, ShardSet
from shards.mixture import Mixture, Proportion
from shards.order import OrderConfig, OrderError, Position
from shards.packing import Packing
from shards.sample_table import SampleTable
from shards.stream import LoaderConfig
from tests.shards.reading import take

CONTEXT = 600
CONFIG = LoaderConfig(OrderConfig(global_batch=4, lanes=2, block=6, drop_tail=False))


def lengths_of(data):
    """As good as any tokens: a fourth of the characters, and a hundred for each ECG."""
    return data.index["text_length"].to_numpy() // 4 + 100 * data.index["ecgs"].to_numpy()


def packing_of(data, context=CONTEXT):
    return Packing(SampleTable(Mixture.of(data)).shard_of_part[0], lengths_of(data), context)


@pytest.fixture(scope="module")
def dialogues(dialogue_shards):
    return ShardSet.open(dialogue_shards).select("train")


@pytest.fixture(scope="module")
def reports(report_shards):
    return ShardSet.open(report_shards).select("train")


def keys_of(batches):
    return [[[sample.key for sample in pack] for pack in batch.packs if pack] for batch in batches]


def test_every_conversation_is_in_one_pack_of_every_epoch_and_packs_fit(dialogues):
    loader = PackedLoader(dialogues, CONFIG, [packing_of(dialogues)])
    tokens = dict(zip(dialogues.index["key"].to_pylist(), lengths_of(dialogues).tolist(), strict=True))
    epochs = np.array_split(np.arange(2 * loader.batches), 2)
    batches = keys_of(take(loader, 2 * loader.batches))
    for epoch in epochs:
        packs = [pack for number in epoch for pack in batches[number]]
        assert sorted(key for pack in packs for key in pack) == sorted(tokens)
        assert all(len(pack) == 1 or sum(tokens[key] for key in pack) <= CONTEXT for pack in packs)
        assert len(packs) == packing_of(dialogues).packs < len(tokens)


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_ranks_share_the_packs_of_a_batch(dialogues, world_size):
    packing = packing_of(dialogues)
    alone = keys_of(take(PackedLoader(dialogues, CONFIG, [packing]), 6))
    ranks = [keys_of(take(PackedLoader(dialogues, CONFIG, [packing], rank, world_size), 6)) for rank in range(world_size)]
    assert [[pack for share in shares for pack in share] for shares in zip(*ranks, strict=True)] == alone


def test_a_resume_goes_on_with_the_same_packs(dialogues):
    loader = PackedLoader(dialogues, CONFIG, [packing_of(dialogues)])
    batches = take(loader, loader.batches + 4)
    for done in (1, loader.batches - 1, loader.batches + 2):
        state = loader.order.state(batches[done - 1].position)
        resumed = PackedLoader(dialogues, CONFIG, [packing_of(dialogues)], start=loader.order.restore(state))
        assert keys_of(take(resumed, 2)) == keys_of(batches[done : done + 2])


def test_a_state_of_other_packs_is_refused(dialogues):
    loader = PackedLoader(dialogues, CONFIG, [packing_of(dialogues)])
    other = PackedLoader(dialogues, CONFIG, [packing_of(dialogues, context=900)])
    with pytest.raises(OrderError, match="selection 'split train; packed [0-9a-f]{64}' then"):
        other.order.restore(loader.order.state(Position(0, 1)))


def test_a_mixture_replays_its_share_of_packs_each_time_in_other_company(dialogues, reports):
    mixture = Mixture((dialogues, reports), (Proportion(), Proportion(share=0.25)))
    packings = [packing_of(dialogues), packing_of(reports)]
    loader = PackedLoader(mixture, CONFIG, packings)
    epoch = [pack for batch in keys_of(take(loader, loader.batches)) for pack in batch]
    replayed = [pack for pack in epoch if set(pack) <= set(reports.index["key"].to_pylist())]
    fresh = [pack for pack in epoch if set(pack) <= set(dialogues.index["key"].to_pylist())]
    assert len(fresh) == packings[0].packs
    assert len(replayed) == round(packings[0].packs / 3)
    assert len(fresh) + len(replayed) == len(epoch)


def test_ecgs_are_not_packed_as_conversations(simulated_shards):
    data = ShardSet.open(simulated_shards).select("train")
    with pytest.raises(DatasetError, match="a loader of packed conversations takes kind 'conversation'"):
        PackedLoader(data, CONFIG, [packing_of(data)])
