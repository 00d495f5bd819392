"""One 64-bit mixer for the whole project: keys to buckets and shards, seeds to draws, records to ids.

``recsys/table/cpp/hashing.h`` computes the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1


def mix64(x: int) -> int:
    """splitmix64: a bijection of 64 bits that looks random (Steele, Lea & Flood, OOPSLA 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


def mix64_each(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """``mix64`` of each element; a new array of the same shape."""
    # Unsigned integers wrap.
    mixed = x + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
