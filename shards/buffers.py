"""Arrays whose memory is used again once nobody holds them, since new memory costs as much as the copy into it.

Page-locked memory is used again by torch's own allocator; this does the same for memory that is not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class BufferPool:
    """Arrays of one type and size at a time; at most as many are kept as were in use at once."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._free: list[NDArray[Any]] = []

    def take(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array with anything in it. Its memory comes back when the last array or tensor that shares it is gone."""
        size = math.prod(shape)
        block = self._free.pop() if self._free else np.empty(size, self._dtype)
        if block.size != size:
            self._free.clear()
            block = np.empty(size, self._dtype)
        return np.asarray(_Lease(self._free, block)).reshape(shape)


class _Lease:
    """Owns a block for as long as an array refers to it."""

    def __init__(self, free: list[NDArray[Any]], block: NDArray[Any]) -> None:
        self._free, self._block = free, block
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._block)
