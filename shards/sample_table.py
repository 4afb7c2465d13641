"""Where the samples of a mixture lie and what the index knows of each, as arrays: what a loader looks up for every batch.

Rows are numbered as in `shards.order`: those of the first part from 0, those of the second from where the first ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.mixture import Mixture
from shards.record import LEADS
from shards.storage import Store


@dataclass(frozen=True)
class ShardPlace:
    """One shard that is read."""

    store: Store
    name: str
    sha256: str
    bytes: int

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.store.uri_of(self.name)


class SampleTable:
    """Columns over all rows of a mixture.

    Args:
        mixture: the data sets, already filtered.
    """

    def __init__(self, mixture: Mixture) -> None:
        self._index = pa.concat_tables(part.index for part in mixture.parts).combine_chunks()
        self.shards: list[ShardPlace] = []
        self.shard_of_part: list[NDArray[np.int64]] = []
        """For each part (its rows,) the shard of each row, counted from 0."""
        for part in mixture.parts:
            known = {shard["name"]: shard for shard in part.manifest["shards"]}
            codes = pc.dictionary_encode(part.index["shard"].combine_chunks())
            self.shard_of_part.append(np.asarray(codes.indices).astype(np.int64))
            self.shards += [
                ShardPlace(part.store, name, known[name]["sha256"], known[name]["bytes"])
                for name in codes.dictionary.to_pylist()
            ]
        firsts = np.cumsum([0, *(part.max(initial=-1) + 1 for part in self.shard_of_part)])
        self.shard = np.concatenate([part + first for part, first in zip(self.shard_of_part, firsts, strict=False)])
        """(N,) number of its shard in `shards`."""
        self.offset: NDArray[np.int64] = self._column("offset")
        self.bytes: NDArray[np.int64] = self._column("bytes")
        self.xxh3: NDArray[np.uint64] = self._column("xxh3")

    def __len__(self) -> int:
        return len(self.offset)

    @cached_property
    def samples(self) -> NDArray[np.int64]:
        """(N,) samples of each lead of its (first) ECG."""
        return self._column("samples")

    @cached_property
    def fs_hz(self) -> NDArray[np.float32]:
        """(N,) sampling rate."""
        return self._column("fs_hz").astype(np.float32)

    @cached_property
    def mv_per_lsb(self) -> NDArray[np.float32]:
        """(N, 12) millivolts of one count, for samples of one ECG each."""
        flat = np.asarray(pc.list_flatten(self._index["mv_per_lsb"].combine_chunks()))
        return flat.astype(np.float32).reshape(-1, len(LEADS))

    @cached_property
    def has_gaps(self) -> NDArray[np.bool_]:
        """(N,) whether some sample of the signal is not valid."""
        return self._column("invalid_fraction") > 0

    @cached_property
    def patient(self) -> NDArray[np.uint64]:
        """(N,) a number that stands for the patient; 0 where there is none."""
        return _numbers(self._index["patient_hash"])

    @cached_property
    def text(self) -> NDArray[np.uint64]:
        """(N,) a number that stands for the text; 0 where there is none."""
        return _numbers(self._index["text_hash"])

    def keys(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Keys of some rows."""
        starts, text = self._key_text
        return [text[starts[row] : starts[row + 1]].tobytes().decode() for row in np.asarray(rows, np.int64).tolist()]

    @cached_property
    def _key_text(self) -> tuple[NDArray[np.int32], memoryview]:
        """Where each key begins in the text of all, and that text: Arrow's own memory, ten times as quick as its `take`."""
        keys = self._index["key"].combine_chunks()
        _, offsets, text = keys.buffers()
        return np.frombuffer(offsets, np.int32)[keys.offset :], memoryview(text)

    def place(self, row: int) -> ShardPlace:
        """The shard that holds a row."""
        return self.shards[self.shard[row]]

    def _column(self, name: str) -> NDArray[Any]:
        return np.asarray(self._index[name].to_numpy())


def _numbers(hashes: pa.ChunkedArray) -> NDArray[np.uint64]:
    """(N,) 16 hexadecimal digits each as a number, the empty string as 0."""
    digits = pc.if_else(pc.equal(hashes, ""), "0" * 16, hashes)
    joined = "".join(digits.to_pylist())
    return np.frombuffer(bytes.fromhex(joined), ">u8").astype(np.uint64)
