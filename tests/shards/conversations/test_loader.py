"""Conversations streamed: the samples of the order, whoever reads them, each with its own number of ECGs."""

import threading

import numpy as np
import pytest

from shards.conversations.loader import ConversationLoader, LoaderConfig, read_conversation
from shards.dataset import DatasetError, ShardSet
from shards.loader import EcgLoader
from shards.order import OrderConfig
from shards.tar import ShardFormatError
from shards.verify import verify
from tests.shards.reading import take
from tests.shards.rewriting import rewrite_sample

CONFIG = LoaderConfig(OrderConfig(global_batch=10, lanes=4, block=8))


@pytest.fixture(scope="module")
def training(dialogues):
    return dialogues.select("train")


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_any_number_of_ranks_sees_the_same_global_batches(training, world_size):
    loaders = [ConversationLoader(training, CONFIG, rank, world_size) for rank in range(world_size)]
    count = loaders[0].batches + 2
    seen = [take(loader, count) for loader in loaders]
    keys = training.index["key"].to_pylist()
    for number in range(count):
        epoch, batch = divmod(number, loaders[0].batches)
        expected = [keys[i] for i in loaders[0].order.batch_samples(epoch, batch)]
        assert [key for rank in seen for key in rank[number].keys if key] == expected
        assert len({len(rank[number].samples) for rank in seen}) == 1


def test_padding_is_none_and_has_no_key(training):
    for batch in (take(ConversationLoader(training, CONFIG, rank, 7), 1)[0] for rank in range(7)):
        assert len(batch.samples) == len(batch.keys) == 2
        assert [sample.key if sample else "" for sample in batch.samples] == batch.keys


def test_a_batch_holds_what_its_samples_hold(training):
    seen = [sample for batch in take(ConversationLoader(training, CONFIG), 8) for sample in batch.samples]
    for sample in seen:
        expected = read_conversation(training, sample.key)
        assert sample.record == expected.record
        assert all(np.array_equal(*both) for both in zip(sample.ecgs, expected.ecgs, strict=True))
        assert [len(scale) for scale in sample.mv_per_lsb] == [12] * len(sample.ecgs)
    assert {len(sample.ecgs) for sample in seen} == {0, 1, 2}


def test_another_start_goes_on_where_the_state_says(training):
    loader = ConversationLoader(training, CONFIG)
    batches = take(loader, 14)
    for done in (1, loader.batches, loader.batches + 1):
        state = loader.order.state(batches[done - 1].position)
        resumed = ConversationLoader(training, CONFIG, start=loader.order.restore(state))
        assert [batch.keys for batch in take(resumed, 14 - done)] == [batch.keys for batch in batches[done:]]


def test_the_reading_thread_ends_with_the_iterator(training):
    before = threading.active_count()
    [first, *_] = take(ConversationLoader(training, CONFIG), 2)
    assert threading.active_count() == before
    assert first.wait_s > 0


def test_each_loader_refuses_the_other_kind(dialogues, ecgs):
    with pytest.raises(
        DatasetError, match=r"kind 'ecg', a loader of conversations takes kind 'conversation'; .*conversations'"
    ):
        ConversationLoader(ecgs, CONFIG)
    with pytest.raises(DatasetError, match=r"kind 'conversation', a loader of ECGs takes kind 'ecg'; .*shards build'"):
        EcgLoader(dialogues, CONFIG, 1000)


def test_a_conversation_is_not_read_as_an_ecg(dialogues, ecgs):
    with pytest.raises(DatasetError, match="kind 'conversation', reading 'simulated-ptb-xl-1-dialogue' as one ECG takes"):
        dialogues.sample("simulated-ptb-xl-1-dialogue")
    with pytest.raises(DatasetError, match="kind 'ecg', reading 'simulated-ptb-xl-1' as a conversation takes"):
        read_conversation(ecgs, "simulated-ptb-xl-1")


@pytest.fixture
def without_its_ecg(dialogues, tmp_path):
    """A copy of the dialogues in which one has lost its ECG, and its shard nothing else: (data set, key)."""
    row = next(row for row in dialogues.index.to_pylist() if row["ecgs"] == 1 and row["split"] == "val")
    for name in dialogues.store.list():
        (tmp_path / name).write_bytes(dialogues.store.get(name))

    def without(members, size):
        used = len(members["json"]) + 512 + -len(members["json"]) % 512
        return [{"json": members["json"]}, {"txt": bytes(size - used - 512)}]

    rewrite_sample(tmp_path, row, without)
    return ShardSet.open(str(tmp_path)), row["key"]


def test_a_sample_without_its_ecg_is_named(without_its_ecg):
    data, key = without_its_ecg
    with pytest.raises(
        ShardFormatError, match=rf"sample {key}: expected an ECG for each of the 1 <ecg> in its text, found none"
    ):
        read_conversation(data, key)
    whole_split = LoaderConfig(OrderConfig(global_batch=data.select("val").index.num_rows))
    with pytest.raises(ShardFormatError, match=rf"val-.*tar: sample {key}: expected an ECG"):
        take(ConversationLoader(data.select("val"), whole_split), 1)


def test_verify_names_a_sample_without_its_ecg(without_its_ecg):
    data, key = without_its_ecg
    [problem] = verify(data)
    assert f"sample {key} cannot be read" in problem
    assert "expected an ECG for each" in problem


def test_a_real_s3_server_gives_the_same_conversations(simulated_folder, dialogues, training, s3):
    from shards.build import BuildOptions, build
    from shards.conversations.source import ComposedConversations
    from shards.sources.ptb_xl import PtbXl

    options = BuildOptions(records_per_shard=16)
    build(PtbXl(simulated_folder, 100), f"{s3}/ecgs", options)
    build(ComposedConversations(ShardSet.open(f"{s3}/ecgs"), text_only=0.2), f"{s3}/dialogues", options)
    remote = ShardSet.open(f"{s3}/dialogues")
    assert remote.digest == dialogues.digest
    there, here = (take(ConversationLoader(data.select("train"), CONFIG), 3) for data in (remote, training))
    assert [batch.keys for batch in there] == [batch.keys for batch in here]
