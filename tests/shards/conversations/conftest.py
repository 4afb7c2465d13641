"""Conversations with the records that they are about."""

from __future__ import annotations

from typing import Any

import pytest

from shards.build import BuildOptions, build
from shards.conversations.loader import ConversationSample, read_conversation
from shards.conversations.source import ComposedConversations
from shards.dataset import ShardSet
from shards.sources.ptb_xl import PtbXl

SMALL = BuildOptions(records_per_shard=16)


def described(data: ShardSet) -> dict[str, dict[str, Any]]:
    """Record id → description of every ECG sample."""
    samples = (data.sample(key) for key in data.index["key"].to_pylist())
    return {record["record_id"]: record for _, _, record in samples}


def spoken(data: ShardSet) -> list[ConversationSample]:
    """Every conversation."""
    return [read_conversation(data, key) for key in data.index["key"].to_pylist()]


@pytest.fixture(scope="session")
def ecgs(simulated_shards):
    """The simulated ECG data set."""
    return ShardSet.open(simulated_shards)


@pytest.fixture(scope="session")
def dialogues(dialogue_shards):
    """Dialogues about it."""
    return ShardSet.open(dialogue_shards)


@pytest.fixture(scope="session")
def real_ecgs(ptb_xl_folder, tmp_path_factory):
    """80 records of PTB-XL as a data set."""
    uri = str(tmp_path_factory.mktemp("real") / "set")
    build(PtbXl(ptb_xl_folder), uri, SMALL)
    return ShardSet.open(uri)


@pytest.fixture(scope="session")
def real_dialogues(real_ecgs, tmp_path_factory):
    """Dialogues about them."""
    uri = str(tmp_path_factory.mktemp("real") / "dialogues")
    build(ComposedConversations(real_ecgs, "dialogue"), uri, SMALL)
    return ShardSet.open(uri)
