"""Batches of conversations for one rank, streamed from shards in the order of `shards.order`.

Nothing is padded here: texts become tokens, and ECGs millivolts, where the model is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.conversations.record import count_marks
from shards.dataset import ShardSet
from shards.order import Position
from shards.record import ECG_MARK
from shards.stream import LoaderConfig, SampleStream
from shards.tar import ShardFormatError, decode_array, decode_json

__all__ = ["ConversationBatch", "ConversationLoader", "ConversationSample", "LoaderConfig", "read_conversation"]


@dataclass(frozen=True)
class ConversationSample:
    """One conversation with its ECGs."""

    key: str
    ecgs: list[NDArray[np.int16]]
    """(12, samples) each, in the order of the marks in the text; lengths may differ."""
    mv_per_lsb: list[list[float]]
    """Twelve scales for each ECG."""
    record: dict[str, Any]
    """Its description: turns, expected answers, where its ECGs come from."""


@dataclass(frozen=True)
class ConversationBatch:
    """What one rank takes of one global batch; as many places on every rank."""

    samples: list[ConversationSample | None]
    """None for padding."""
    keys: list[str]
    """Empty for padding."""
    position: Position
    """Where reading stands after this batch."""
    wait_s: float
    """Seconds that the caller waited for it."""


class ConversationLoader(SampleStream[ConversationSample, ConversationBatch]):
    """Endless batches of one rank; the arguments are those of `SampleStream`.

    Raises:
        DatasetError: the data set holds no conversations.
    """

    def __init__(
        self, data: ShardSet, config: LoaderConfig, rank: int = 0, world_size: int = 1, start: Position = Position()
    ) -> None:
        data.require_kind("conversation", "a loader of conversations")
        super().__init__(data, config, rank, world_size, start)

    def _decode(self, key: str, members: dict[str, memoryview], where: str) -> ConversationSample:
        return decode_conversation(key, members, where)

    def _waited(self, batch: ConversationBatch, seconds: float) -> ConversationBatch:
        return replace(batch, wait_s=seconds)

    def _collate(self, chosen: Sequence[tuple[str, ConversationSample] | None], position: Position) -> ConversationBatch:
        samples = [item[1] if item else None for item in chosen]
        samples += [None] * (self._width - len(samples))
        return ConversationBatch(samples, [sample.key if sample else "" for sample in samples], position, wait_s=0.0)


def decode_conversation(key: str, members: dict[str, memoryview], where: str) -> ConversationSample:
    """One conversation from the members of its sample.

    Raises:
        ShardFormatError: a member is missing, or there are not as many ECGs as the text speaks of.
    """
    if "json" not in members:
        raise ShardFormatError(f"{where}: sample {key} has no .json member; verify and rebuild the shards")
    record = decode_json(members["json"])
    ecgs = sorted((name for name in members if name.startswith("ecg")), key=lambda name: (len(name), name))
    marks = count_marks(record["conversations"])
    if ecgs != [f"ecg{i}.npy" for i in range(marks)]:
        raise ShardFormatError(
            f"{where}: sample {key}: expected an ECG for each of the {marks} {ECG_MARK} in its text, found "
            f"{', '.join(ecgs) or 'none'}; verify and rebuild the shards"
        )
    return ConversationSample(key, [decode_array(members[name]) for name in ecgs], record["mv_per_lsb"], record)


def read_conversation(data: ShardSet, key: str) -> ConversationSample:
    """One conversation by its key.

    Raises:
        DatasetError: there is none with that key, or the data set holds no conversations.
    """
    data.require_kind("conversation", f"reading {key!r} as a conversation")
    found, members = data.members(key)
    return decode_conversation(found, members, data.store.uri)
