"""Batches of conversations for one rank, streamed from shards in the order of `shards.order`.

Nothing is padded here: texts become tokens, and ECGs millivolts, where the model is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.conversations.record import count_marks
from shards.dataset import ShardSet
from shards.order import Position
from shards.record import ECG_MARK
from shards.stream import Batch, Chosen, LoaderConfig, SampleStream
from shards.tar import ShardFormatError, decode_array, decode_json, unpack_samples

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


@dataclass(frozen=True, kw_only=True)
class ConversationBatch(Batch):
    """What one rank takes of one global batch of conversations."""

    samples: list[ConversationSample | None]
    """(n,) None for padding and for what is damaged."""


class ConversationLoader(SampleStream[ConversationBatch]):
    """Endless batches of one rank; the arguments are those of `SampleStream`.

    Raises:
        DatasetError: a data set holds no conversations.
        OrderError: the samples do not fill one batch.
    """

    kind = "conversation"
    reads = "conversations"

    def _batch(self, chosen: Chosen, position: Position) -> ConversationBatch:
        damaged: list[str] = []
        samples: list[ConversationSample | None] = [None] * self.width
        for place, (row, fetched) in enumerate(zip(chosen.drawn.samples.tolist(), chosen.fetched, strict=True)):
            body = self.read(row, fetched, damaged)
            if body is not None:
                samples[place] = open_conversation(body, self.table.place(row).uri)
        return ConversationBatch(
            keys=[sample.key if sample else "" for sample in samples],
            weight=np.array([sample is not None for sample in samples], np.float32),
            damaged=damaged,
            position=position,
            samples=samples,
        )


def open_conversation(body: memoryview, where: str) -> ConversationSample:
    """One conversation from the bytes of its sample, which it does not share.

    Raises:
        ShardFormatError: they are no sample of a conversation.
    """
    [(key, members)] = unpack_samples(bytes(body), where)
    return decode_conversation(key, members, where)


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
