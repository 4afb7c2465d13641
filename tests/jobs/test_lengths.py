"""Counting the tokens of a data set's conversations: exactly as the stages tokenise them, once, ahead of them or by command."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ecgchat.conversation import PLAIN_TEMPLATE, collate, load_chat_tokenizer, tokenise
from ecgchat.errors import ModelError
from jobs.shards import lengths as counting
from jobs.shards.lengths import TOKENISE_VERSION, ensure_lengths, lengths_digest, lengths_of
from shards.dataset import DatasetError, ShardSet
from shards.lengths import read_lengths
from shards.storage import Store
from tests.jobs.test_cli import assert_one_sentence
from tests.language import TOKENS_PER_ECG, make_encoder, make_llm


@pytest.fixture(scope="module")
def llm(dialogue_shards, tmp_path_factory):
    return make_llm(tmp_path_factory.mktemp("llm"), dialogue_shards, width=8)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def tokenizer(llm):
    return load_chat_tokenizer(llm)


@pytest.fixture
def data(dialogue_shards, tmp_path, monkeypatch):
    """A copy of the dialogues that a test may write beside."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, copy = Store(dialogue_shards), Store(str(tmp_path / "set"))
    for name in source.list():
        copy.put(name, source.get(name))
    return ShardSet.open(copy.uri)


@pytest.fixture
def counted(monkeypatch):
    """Shards that were read to count, in this process."""
    shards = []
    call = counting.TokenCounter.__call__

    def counts(self, shard):
        shards.append(shard)
        return call(self, shard)

    monkeypatch.setattr(counting.TokenCounter, "__call__", counts)
    return shards


# --- counting


def test_each_row_has_the_length_that_the_llm_is_given(data, tokenizer, counted):
    """Mixed: of several turns, with one ECG, two and none."""
    found = lengths_of(data, tokenizer, TOKENS_PER_ECG)
    records = dict(data.descriptions())
    tokenised = [
        tokenise(tokenizer, records[key]["conversations"], TOKENS_PER_ECG, 4096) for key in data.index["key"].to_pylist()
    ]
    batch = collate(tokenised, None, tokenizer.pad_token_id)
    assert found.tolist() == batch.attention_mask.sum(dim=1).tolist()
    assert {conversation.ecgs for conversation in tokenised} == {0, 1, 2}
    assert sorted(counted) == sorted({shard["name"] for shard in data.manifest["shards"]})


def test_a_conversation_longer_than_any_context_is_not_cut(data, tokenizer):
    assert lengths_of(data, tokenizer, 100_000).max() > 100_000


def test_a_split_has_the_lengths_of_its_rows(data, tokenizer):
    whole = dict(zip(data.index["key"].to_pylist(), lengths_of(data, tokenizer, 7), strict=True))
    part = data.select("val")
    assert lengths_of(part, tokenizer, 7).tolist() == [whole[key] for key in part.index["key"].to_pylist()]


@pytest.mark.slow
def test_another_process_counts_the_same_and_is_heard_of(data, tokenizer):
    told = []
    here = lengths_of(data, tokenizer, TOKENS_PER_ECG)
    assert np.array_equal(lengths_of(data, tokenizer, TOKENS_PER_ECG, processes=1, on_counted=told.append), here)
    assert len(told) == len(data.manifest["shards"])
    assert sum(told) == data.index.num_rows


def test_a_conversation_that_the_template_refuses_is_named_before_training(data, tokenizer):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate otherwise') }}"
    with pytest.raises(ModelError, match=f"{data.index['key'][0]}: .*roles must alternate otherwise"):
        lengths_of(data, tokenizer, TOKENS_PER_ECG)


def test_shards_that_lack_a_sample_are_named(data, tokenizer):
    more = pa.Table.from_pylist([{**data.index.to_pylist()[0], "key": "nobody"}], schema=data.index.schema)
    longer = ShardSet(data.store, data.manifest, pa.concat_tables([data.index, more]))
    with pytest.raises(DatasetError, match="its shards lack 1 samples of the index; verify and rebuild"):
        lengths_of(longer, tokenizer, TOKENS_PER_ECG)


# --- once


def test_what_is_known_is_not_counted_again(data, tokenizer, counted):
    first = ensure_lengths(data, tokenizer, TOKENS_PER_ECG)
    assert len(counted) == len(data.manifest["shards"])
    counted.clear()
    assert np.array_equal(ensure_lengths(ShardSet.open(data.store.uri), tokenizer, TOKENS_PER_ECG), first)
    assert counted == []
    assert np.array_equal(read_lengths(data, lengths_digest(tokenizer, TOKENS_PER_ECG)), first)


def test_another_number_of_tokens_for_an_ecg_is_counted_anew(data, tokenizer, counted):
    few, more = ensure_lengths(data, tokenizer, 7), ensure_lengths(data, tokenizer, 8)
    assert np.array_equal(more - few, data.index["ecgs"].to_numpy())
    assert len(counted) == 2 * len(data.manifest["shards"])


def test_a_data_set_of_ecgs_is_refused(simulated_shards, tokenizer):
    with pytest.raises(DatasetError, match="kind 'ecg', counting tokens takes kind 'conversation'"):
        ensure_lengths(ShardSet.open(simulated_shards), tokenizer, TOKENS_PER_ECG)


# --- digest


def test_the_digest_is_that_of_what_the_tokenizer_does_not_of_where_it_lies(llm, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    elsewhere = load_chat_tokenizer(str(tmp_path))
    elsewhere(["a", "a longer text"], padding=True, truncation=True, max_length=2)
    assert lengths_digest(elsewhere, TOKENS_PER_ECG) == lengths_digest(tokenizer, TOKENS_PER_ECG)


def test_the_digest_names_all_that_decides_a_length(llm, monkeypatch):
    def changed(change):
        tokenizer = load_chat_tokenizer(llm)
        change(tokenizer)
        return lengths_digest(tokenizer, TOKENS_PER_ECG)

    same = changed(lambda tokenizer: None)
    others = [
        changed(lambda tokenizer: setattr(tokenizer, "chat_template", PLAIN_TEMPLATE + " ")),
        changed(lambda tokenizer: setattr(tokenizer, "eos_token", "the")),
        changed(lambda tokenizer: tokenizer.add_tokens(["electrocardiogram"])),
        lengths_digest(load_chat_tokenizer(llm), TOKENS_PER_ECG + 1),
    ]
    monkeypatch.setattr(counting, "TOKENISE_VERSION", TOKENISE_VERSION + 1)
    others.append(changed(lambda tokenizer: None))
    assert len({same, *others}) == 6


def test_tables_of_this_version_count_as_tokenise_does_today():
    """Where this fails, conversations have other lengths than tables say: raise `TOKENISE_VERSION` with the figure.

    A token for each of 78 characters of the rendered text, and twice 101.
    """
    letters = Tokenizer(models.WordLevel({letter: ord(letter) for letter in map(chr, range(128))}, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="$", pad_token="#")
    tokenizer.chat_template = PLAIN_TEMPLATE
    turns = ["<ecg>\nIs it sinus rhythm?", "Yes.", "And now? <ecg>", "No: AF."]
    conversation = [{"from": "human" if i % 2 == 0 else "gpt", "value": value} for i, value in enumerate(turns)]
    assert (TOKENISE_VERSION, len(tokenise(tokenizer, conversation, 101, 4096).tokens)) == (1, 280)


# --- the command


def test_the_command_counts_ahead_of_a_stage(ecgchat, data, tokenizer, llm, encoder):
    said = ecgchat("shards", "lengths", data.store.uri, "--llm", llm, "--encoder", encoder)
    assert (said.status, said.err) == (0, "")
    lengths = read_lengths(data, lengths_digest(tokenizer, TOKENS_PER_ECG))
    assert f"{lengths.sum():,} tokens in {len(lengths):,} conversations, {TOKENS_PER_ECG} for each ECG" in said.text
    assert f"counted, in {data.store.uri}/lengths/" in said.text
    [table] = Path(data.store.uri.removeprefix("file://"), "lengths").iterdir()
    assert pq.read_metadata(table).metadata[b"of"].decode() == f"the tokenizer {Path(llm).name}, 11 tokens for each ECG"
    again = ecgchat("shards", "lengths", data.store.uri, "--llm", llm, "--encoder", encoder)
    assert "counted, in" not in again.text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--encoder {encoder}", "--llm: {encoder} is an ECG-CoCa, which names no LLM"),
        ("--encoder {llm} --llm {llm}", "{llm}: no exported ECG-CoCa or export of align can be read from it"),
        ("--encoder {encoder} --llm {folder}", "{folder}: no LLM can be read from it"),
        ("--encoder {encoder} --llm {llm} --workers -1", "--workers -1: expected a number of processes"),
        ("--encoder {encoder} --llm {llm} --pad-token none", "pad_token 'none'"),
    ],
)
def test_what_the_command_cannot_use_is_said(ecgchat, data, llm, encoder, tmp_path, words, sentence):
    places = {"encoder": encoder, "llm": llm, "folder": str(tmp_path)}
    said = ecgchat("shards", "lengths", data.store.uri, *words.format(**places).split())
    assert_one_sentence(said, sentence.format(**places))


def test_the_help_names_its_arguments(ecgchat):
    said = ecgchat("shards", "lengths", "--help")
    assert said.status == 0
    arguments = "URI --encoder --llm --pad-token --workers"
    assert [argument for argument in arguments.split() if argument not in said.out] == []
