"""Batches of full sequences: conversations packed by `shards.packing`, streamed for one rank in the order of `shards.order`.

What the order counts, shuffles and remembers in its state are packs; who is in one follows from its number and the round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shards.conversations.loader import ConversationSample, open_conversation
from shards.dataset import ShardSet
from shards.mixture import Mixture
from shards.order import Drawn, Order, Position
from shards.packing import Packing
from shards.stream import Batch, Chosen, LoaderConfig, SampleStream


@dataclass(frozen=True, kw_only=True)
class PackedBatch(Batch):
    """What one rank takes of one global batch of packs."""

    packs: list[list[ConversationSample]]
    """(n,) the conversations of each sequence, in order; empty for padding. A damaged one is missing from its pack."""


class PackedLoader(SampleStream[PackedBatch]):
    """Endless batches of one rank.

    Args:
        data: the conversations to read, already filtered.
        config: order and read-ahead; `global_batch` and `block` count packs.
        packings: of each part of the data, over its rows.
        rank: which part of each global batch to take.
        world_size: of how many.
        start: where to begin; `order.restore(state)` after a restart.

    Raises:
        DatasetError: a data set holds no conversations.
        OrderError: the packs do not fill one batch.
    """

    kind = "conversation"
    reads = "packed conversations"

    def __init__(
        self,
        data: ShardSet | Mixture,
        config: LoaderConfig,
        packings: Sequence[Packing],
        rank: int = 0,
        world_size: int = 1,
        start: Position = Position(),
    ) -> None:
        self._packings = packings
        self._first_pack = np.cumsum([0, *(packing.packs for packing in packings)])
        super().__init__(data, config, rank, world_size, start)
        self._first_row = np.cumsum([0, *map(len, self.table.shard_of_part)])

    def _order(self) -> Order:
        identity = self.mixture.identity
        packed = "+".join(packing.digest for packing in self._packings)
        named = replace(identity, selection=f"{identity.selection}; packed {packed}")
        return self._order_of([packing.shard_of_pack for packing in self._packings], named)

    def _rows(self, drawn: Drawn) -> NDArray[np.int64]:
        return np.concatenate([np.zeros(0, np.int64), *self._members(drawn)])

    def _members(self, drawn: Drawn) -> list[NDArray[np.int64]]:
        """Rows of the table of each pack."""
        parts = np.searchsorted(self._first_pack, drawn.samples, side="right") - 1
        members = []
        for part, number, pack in zip(parts.tolist(), drawn.rounds.tolist(), drawn.samples, strict=True):
            here = np.array([pack - self._first_pack[part]])
            [rows] = self._packings[part].members(number, here, self.config.order.seed)
            members.append(self._first_row[part] + rows)
        return members

    def _batch(self, chosen: Chosen, position: Position) -> PackedBatch:
        damaged: list[str] = []
        packs: list[list[ConversationSample]] = [[] for _ in range(self.width)]
        for pack, rows, fetched in zip(packs, self._members(chosen.drawn), chosen.fetched, strict=False):
            for row in rows.tolist():
                body = self.read(row, fetched, damaged)
                if body is not None:
                    pack.append(open_conversation(body, self.table.place(row).uri))
        return PackedBatch(
            keys=[sample.key for pack in packs for sample in pack],
            weight=np.array([bool(pack) for pack in packs], np.float32),
            damaged=damaged,
            position=position,
            packs=packs,
        )
