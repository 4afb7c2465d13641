"""Batches of ECGs for one rank, streamed from shards in the order of `shards.order`.

What leaves is int16 with its scales, in page-locked memory where a GPU is to read it: millivolts, resampling and masks are made
on the device (`ecgchat.models.signal`). Where that is the CPU, millivolts can be made here, while a signal is still in its
cache. Descriptions are parsed when they are asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shards.buffers import BufferPool
from shards.dataset import ShardSet
from shards.draws import random_bits
from shards.mixture import Mixture
from shards.order import Position
from shards.record import INVALID, LEADS, npy_header
from shards.stream import Batch, Chosen, LoaderConfig, SampleStream
from shards.tar import BLOCK, ShardFormatError, decode_json, unpack_samples

__all__ = ["EcgBatch", "EcgLoader", "EcgWindow", "LoaderConfig"]

Crop = Literal["start", "centre", "random"]

Form = Literal["counts", "pinned", "millivolts"]
"""What signals leave as: int16, int16 in page-locked memory, or float32 in millivolts."""


@dataclass(frozen=True)
class EcgWindow:
    """The part of each ECG that a batch holds, at the rate that it was recorded at."""

    seconds: float
    """Length; a shorter ECG is padded at its end."""
    crop: Crop = "start"
    """Where the window lies in a longer ECG: random is another place each time that a sample is read."""


@dataclass(frozen=True, kw_only=True)
class EcgBatch(Batch):
    """What one rank takes of one global batch of ECGs."""

    ecg: NDArray[Any]
    """(n, 12, samples) int16 counts or float32 millivolts; where it ends and where it is not valid, `INVALID` or NaN."""
    mv_per_lsb: NDArray[np.float32]
    """(n, 12) millivolts of one count."""
    length: NDArray[np.int64]
    """(n,) samples of each ECG that are there, 0 for padding."""
    fs_hz: NDArray[np.float32]
    """(n,) sampling rate, 0 for padding."""
    has_invalid: bool
    """Whether there is such a sample in `ecg` at all."""
    patient: NDArray[np.uint64]
    """(n,) stands for the patient, so that pairs of one patient are known; 0 for padding."""
    text: NDArray[np.uint64]
    """(n,) stands for the report, so that pairs with the same one are known; 0 for padding and where there is none."""
    draw: NDArray[np.uint64]
    """(n,) 64 random bits for whatever is random in a step: others each time that a sample is read, and a function of the
    seed, the sample and how often it was read before alone; 0 for padding."""
    descriptions: list[bytes]
    """(n,) what follows each signal in its shard; `records` reads it."""

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """(n,) the samples' descriptions, {} for padding."""
        return [_description(entries) if entries else {} for entries in self.descriptions]


class EcgLoader(SampleStream[EcgBatch]):
    """Endless batches of one rank.

    Args:
        data: the samples to read, already filtered.
        config: order and read-ahead.
        window: the part of each ECG to take.
        rank: which part of each global batch to take.
        world_size: of how many.
        start: where to begin; `order.restore(state)` after a restart.
        form: what signals leave as.

    Raises:
        DatasetError: a data set holds no ECG samples.
        OrderError: the samples do not fill one batch.
    """

    kind = "ecg"
    reads = "ECGs"

    def __init__(
        self,
        data: ShardSet | Mixture,
        config: LoaderConfig,
        window: EcgWindow,
        rank: int = 0,
        world_size: int = 1,
        start: Position = Position(),
        form: Form = "counts",
    ) -> None:
        super().__init__(data, config, rank, world_size, start)
        self.window = window
        self.form = form
        self._pool = BufferPool(np.float32 if form == "millivolts" else np.int16)
        self._longest = round(window.seconds * float(self.table.fs_hz.max()))

    def _batch(self, chosen: Chosen, position: Position) -> EcgBatch:
        table, rows, n = self.table, chosen.drawn.samples, self.width
        draw = random_bits(rows + chosen.drawn.rounds * len(table), "draw", self.config.order.seed)
        first, length = self._windows(rows, draw)
        ecg = self._empty((n, len(LEADS), self._longest))
        there = np.zeros(n, bool)
        descriptions = [b""] * n
        damaged: list[str] = []
        for place, row in enumerate(rows.tolist()):
            body = self.read(row, chosen.fetched[place], damaged)
            if body is not None:
                signal, descriptions[place] = self._opened(body, row)
                self._put(signal[:, first[place] : first[place] + length[place]], ecg[place], row)
                there[place] = True

        def padded(column: NDArray[Any]) -> NDArray[Any]:
            full = np.zeros((n, *column.shape[1:]), column.dtype)
            full[: len(rows)] = column
            full[~there] = 0
            return full

        lengths = padded(length)
        for place in np.flatnonzero(lengths < self._longest).tolist():
            ecg[place, :, lengths[place] :] = np.nan if self.form == "millivolts" else INVALID
        return EcgBatch(
            keys=[key if here else "" for key, here in zip([*table.keys(rows), *[""] * (n - len(rows))], there, strict=True)],
            weight=there.astype(np.float32),
            damaged=damaged,
            position=position,
            ecg=ecg,
            mv_per_lsb=padded(table.mv_per_lsb[rows]),
            length=lengths,
            fs_hz=padded(table.fs_hz[rows]),
            has_invalid=bool(table.has_gaps[rows].any() or (lengths < self._longest).any()),
            patient=padded(table.patient[rows]),
            text=padded(table.text[rows]),
            draw=padded(draw),
            descriptions=descriptions,
        )

    def _opened(self, body: memoryview, row: int) -> tuple[NDArray[np.int16], bytes]:
        """(12, samples) counts of a sample, in its own bytes, and what follows them in the shard."""
        shape = (len(LEADS), int(self.table.samples[row]))
        header = npy_header(shape)
        begin = BLOCK + len(header)
        if body[BLOCK:begin] != header:
            raise ShardFormatError(
                f"{self.table.place(row).uri}: sample {self.table.keys([row])[0]} does not begin with a signal of shape "
                f"{shape} in int16; build the shards again"
            )
        signal = np.frombuffer(body, "<i2", math.prod(shape), begin).reshape(shape)
        return signal, bytes(body[begin + signal.nbytes :])

    def _put(self, signal: NDArray[np.int16], target: NDArray[Any], row: int) -> None:
        """Write a window of a signal to its place in the batch, as counts or millivolts."""
        target = target[:, : signal.shape[1]]
        if self.form != "millivolts":
            target[:] = signal
            return
        # By way of a copy that stays in the processor's cache: the batch, which does not, is written once.
        np.multiply(signal.astype(np.float32), self.table.mv_per_lsb[row][:, None], out=target)
        if self.table.has_gaps[row]:
            target[signal == INVALID] = np.nan

    def _windows(self, rows: NDArray[np.int64], draw: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) first sample and (n,) length of each ECG's window."""
        have = self.table.samples[rows]
        length = np.minimum(have, np.rint(self.window.seconds * self.table.fs_hz[rows]).astype(np.int64))
        room = have - length
        match self.window.crop:
            case "start":
                first = np.zeros_like(room)
            case "centre":
                first = room // 2
            case "random":
                first = (draw % (room + 1).astype(np.uint64)).astype(np.int64)
        return first, length

    def _empty(self, shape: tuple[int, ...]) -> NDArray[Any]:
        if self.form != "pinned":
            return self._pool.take(shape)
        import torch  # the data room needs it for page-locked memory alone

        return torch.empty(shape, dtype=torch.int16, pin_memory=True).numpy()


def _description(entries: bytes) -> dict[str, Any]:
    """The JSON among the tar entries that follow a signal, whose padding stands before them."""
    padding = len(entries) % BLOCK
    [(_, members)] = unpack_samples(memoryview(entries)[padding:], "a sample's description")
    return decode_json(members["json"])
