"""Which samples share a full sequence: a pure function of (lengths, context length, seed, epoch).

How 9 samples of one window become packs of at most 1000 tokens:

    lengths:    610 383 381 609 382 302 300 299 98
    slots:      [616 384] [616 384] [384 304 300] [300 98]          found once, the same in every epoch
    an epoch:   [610 383] [609 382] [381 302 299] [300 98]          which sample fills a slot is dealt in each
    another:    [609 382] [610 383] [381 302 300] [299 98]

So every epoch has the same number of packs, and what is in a pack follows from its number and the epoch, wherever a run goes
on; yet samples meet others each time, since those of about one length change places: those whose lengths have the same
first `CLASS_BITS` binary digits, rounded up. A window is a run of samples of one shard. Windows are packed and dealt alone:
the cost of a pack does not depend on its position, and more shards change no pack of those before them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shards.draws import random_bits

PACKING_VERSION = 1

CLASS_BITS = 7
"""Slots are at most 1/64 longer than what fills them, 0.4 % on average; some seven samples of a window of 512 share a class."""

CANDIDATES = 16
"""Lengths that a pack is chosen from, beside twice as many as fill it: more are slower and no fuller."""


class Packing:
    """The packs of one data set's samples.

    Args:
        shard_of: (N,) shard number of each sample, non-decreasing; sample i is row i of the filtered index.
        lengths: (N,) tokens of each sample; those that are longer than a sequence count as one whole sequence, since
            the stage cuts them at its end.
        context_length: tokens of a sequence.
        window: samples that are packed together at most; more fill better and mix better, and lie farther apart.

    Raises:
        ValueError: the arrays differ in length, or a number is less than 1.
    """

    def __init__(
        self, shard_of: NDArray[np.int64], lengths: NDArray[np.int64], context_length: int, window: int = 1024
    ) -> None:
        if len(shard_of) != len(lengths):
            raise ValueError(f"expected a length for each of {len(shard_of)} samples, found {len(lengths)}")
        if min(context_length, window) < 1:
            raise ValueError(f"expected a context length and a window of at least 1, found {context_length} and {window}")
        self.digest = _digest(shard_of, lengths, context_length, window)
        """Names all that the packs depend on, beside seed and epoch."""
        self._window_start = window_starts(shard_of, window)
        self._slot_length = slot_lengths(lengths, context_length)
        """Of the slot that each sample may fill."""
        templates = [
            fill_packs(sorted(self._slot_length[start:stop].tolist(), reverse=True), context_length)
            for start, stop in pairwise(self._window_start)
        ]
        packs_of_window = np.array([len(template) for template in templates], np.int64)
        self._window_of_pack = np.repeat(np.arange(len(templates)), packs_of_window)
        packs = [slots for template in templates for slots in template]
        self._slots = np.array([slot for slots in packs for slot in slots], np.int64)
        """(N,) slots of one pack after the other: places in its window, whose longest slot is 0."""
        self._pack_start = np.cumsum([0, *map(len, packs)])
        self.packs = len(packs)
        """Packs of every epoch."""
        self.shard_of_pack: NDArray[np.int64] = shard_of[self._window_start[self._window_of_pack]]
        """(packs,) shard number of each pack, non-decreasing."""
        self.fill = float(np.minimum(lengths, context_length).sum() / max(1, self.packs * context_length))
        """Share of all sequences' tokens that are samples'."""
        self._kept: tuple[tuple[int, int], dict[int, NDArray[np.int64]]] = ((0, 0), {})
        """The deals of one (seed, epoch) by window: packs are mostly asked for in the order of one epoch."""

    def members(self, epoch: int, packs: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
        """Samples of some packs in one epoch, rows of the filtered index.

        Args:
            epoch: whose deal it is; of a part of a mixture, how many times the whole part was read before.
            packs: numbers of packs, in any order; a negative one stands for padding and has no samples.
            seed: of the deals.
        """
        return [self._members(epoch, int(pack), seed) if pack >= 0 else np.zeros(0, np.int64) for pack in packs]

    def _members(self, epoch: int, pack: int, seed: int) -> NDArray[np.int64]:
        dealt = self._dealt(seed, epoch, int(self._window_of_pack[pack]))
        return dealt[self._slots[self._pack_start[pack] : self._pack_start[pack + 1]]]

    def _dealt(self, seed: int, epoch: int, window: int) -> NDArray[np.int64]:
        """(samples of the window,) which sample fills each of its slots."""
        kept_for, deals = self._kept
        if kept_for != (seed, epoch):
            deals = {}
            self._kept = (seed, epoch), deals
        if window not in deals:
            start, stop = self._window_start[window : window + 2]
            drawn = random_bits(np.arange(stop - start), "deal", seed, epoch, window)
            deals[window] = start + np.lexsort((drawn, -self._slot_length[start:stop]))
        return deals[window]


def window_starts(shard_of: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """(windows + 1,) first sample of each window, and the end: each shard is cut into equal parts of at most `window`."""
    edges = np.flatnonzero(np.r_[True, shard_of[1:] != shard_of[:-1], True]) if len(shard_of) else np.zeros(1, np.int64)
    starts = [
        start + (stop - start) * np.arange(parts) // parts
        for start, stop in pairwise(edges)
        for parts in [-(-(stop - start) // window)]
    ]
    return np.concatenate([*starts, edges[-1:]]).astype(np.int64)


def slot_lengths(lengths: NDArray[np.int64], context_length: int) -> NDArray[np.int64]:
    """Lengths rounded up to `CLASS_BITS` binary digits, and to a whole sequence at most."""
    lengths = np.maximum(lengths, 1)
    digits = np.frexp(lengths)[1]
    step = 1 << np.maximum(0, digits - CLASS_BITS).astype(np.int64)
    rounded: NDArray[np.int64] = np.minimum(-(-lengths // step) * step, context_length)
    return rounded


def fill_packs(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Spread slots over packs so that few packs are needed.

    The longest slot that is left opens a pack, and the best sum of others fills it. The others are sought among a few that
    are spread evenly over all lengths: many sums, quickly, and packs of long and short slots, which deals mix best.

    Args:
        lengths: of the slots, longest first, each at least 1 and at most `room`.
        room: tokens of a pack.

    Returns:
        The places in `lengths` of each pack's slots, ascending.
    """
    left = list(range(len(lengths)))
    tokens = sum(lengths)
    packs = []
    while left:
        sought = CANDIDATES + 2 * room * len(left) // tokens
        candidates = range(1, len(left), max(1, len(left) // sought))
        others = best_sum([lengths[left[place]] for place in candidates], room - lengths[left[0]])
        taken = [0, *(candidates[other] for other in others)]
        packs.append([left.pop(place) for place in reversed(taken)][::-1])
        tokens -= sum(lengths[slot] for slot in packs[-1])
    return packs


def best_sum(lengths: Sequence[int], room: int) -> list[int]:
    """Places of lengths whose sum is the largest that fits into `room`; of equal sums, the one of earlier places.

    Bit s of `reachable[i]` says whether some of the first i lengths have the sum s (Bellman's subset sums, a word at a time).
    """
    within = (1 << (room + 1)) - 1
    reachable = [1]
    for length in lengths:
        reachable.append((reachable[-1] | reachable[-1] << length) & within)
    total = reachable[-1].bit_length() - 1
    taken = []
    for place in reversed(range(len(lengths))):
        if not reachable[place] >> total & 1:
            taken.append(place)
            total -= lengths[place]
    return taken[::-1]


def _digest(shard_of: NDArray[np.int64], lengths: NDArray[np.int64], context_length: int, window: int) -> str:
    content = hashlib.sha256(f"packing {PACKING_VERSION}: {context_length} {window}\n".encode())
    for column in (shard_of, lengths):
        content.update(np.ascontiguousarray(column, "<i8").tobytes())
    return content.hexdigest()
