"""Batches of ECGs for one rank, streamed from shards in the order of `shards.order`.

What leaves is int16 with its scales: millivolts are made on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.dataset import ShardSet
from shards.order import Block, Position
from shards.record import INVALID, LEADS
from shards.stream import LoaderConfig, SampleStream
from shards.tar import decode_array, decode_json

__all__ = ["EcgBatch", "EcgLoader", "LoaderConfig", "block_bytes"]


@dataclass(frozen=True)
class EcgBatch:
    """What one rank takes of one global batch. n is the same on every rank; surplus places have weight 0."""

    ecg: NDArray[np.int16]
    """(n, 12, samples), `INVALID` where a record is shorter or not valid."""
    mv_per_lsb: NDArray[np.float32]
    """(n, 12)."""
    weight: NDArray[np.float32]
    """(n,) 1 for a sample, 0 for padding."""
    records: list[dict[str, Any]]
    """The samples' descriptions, {} for padding."""
    keys: list[str]
    position: Position
    """Where reading stands after this batch."""
    wait_s: float
    """Seconds that the caller waited for it."""


@dataclass(frozen=True)
class _Sample:
    ecg: NDArray[np.int16]
    record: dict[str, Any]


class EcgLoader(SampleStream[_Sample, EcgBatch]):
    """Endless batches of one rank.

    Args:
        data: the samples to read, already filtered by split.
        config: order and read-ahead.
        samples: length that every ECG is cut or padded to.
        rank: which part of each global batch to take.
        world_size: of how many.
        start: where to begin; `order.restore(state)` after a restart.

    Raises:
        DatasetError: the data set holds no ECG samples.
    """

    def __init__(
        self,
        data: ShardSet,
        config: LoaderConfig,
        samples: int,
        rank: int = 0,
        world_size: int = 1,
        start: Position = Position(),
    ) -> None:
        data.require_kind("ecg", "a loader of ECGs")
        super().__init__(data, config, rank, world_size, start)
        self.samples = samples

    def _decode(self, key: str, members: dict[str, memoryview], where: str) -> _Sample:
        return _Sample(decode_array(members["ecg.npy"]), decode_json(members["json"]))

    def _waited(self, batch: EcgBatch, seconds: float) -> EcgBatch:
        return replace(batch, wait_s=seconds)

    def _collate(self, chosen: Sequence[tuple[str, _Sample] | None], position: Position) -> EcgBatch:
        ecg = np.full((self._width, len(LEADS), self.samples), INVALID, np.int16)
        scale = np.ones((self._width, len(LEADS)), np.float32)
        weight = np.zeros(self._width, np.float32)
        records: list[dict[str, Any]] = [{} for _ in range(self._width)]
        keys = [""] * self._width
        for i, item in enumerate(chosen):
            if item is None:
                continue
            keys[i], sample = item
            length = min(self.samples, sample.ecg.shape[1])
            ecg[i, :, :length] = sample.ecg[:, :length]
            scale[i] = sample.record["mv_per_lsb"]
            weight[i] = 1
            records[i] = sample.record
        return EcgBatch(ecg, scale, weight, records, keys, position, wait_s=0.0)


def block_bytes(block: Block, samples: int) -> int:
    """Memory of a decoded block's signals: (stop - start) x 12 leads x samples x 2 bytes."""
    return (block.stop - block.start) * len(LEADS) * samples * 2
