"""Random numbers that are functions of a key: the same for ever, whatever the version of any library."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def random_bits(numbers: NDArray[np.int64], *key: int | str) -> NDArray[np.uint64]:
    """(n,) 64 random bits for each number under a key: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

    The same for ever, unlike the draws of a library's generator, which may change with its version.
    """
    start = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    bits = np.frombuffer(start, "<u8") + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def permutation(count: int, *key: int | str) -> NDArray[np.int64]:
    """(count,) the numbers below `count`, shuffled as the key says."""
    return np.argsort(random_bits(np.arange(count), *key), kind="stable")
