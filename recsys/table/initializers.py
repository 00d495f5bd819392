"""What a new row's weights are, before its first gradient.

A draw is a hash of (slice seed, key, column), never a stream: the same key gets the same weights
whatever came before it, on whichever thread. ``cpp/slices.h`` computes the same bits.

Axes: D columns of one slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.hashing import mix64, mix64_each

Floats = NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zeros:
    """Every weight starts at 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """Every weight starts at the same number."""

    value: float
    """Finite as a float32."""

    def __post_init__(self) -> None:
        if not abs(self.value) <= _LARGEST:
            raise ConfigError(f"value must be finite in float32, got {self.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Each weight is drawn evenly between two numbers."""

    low: float
    """Smallest weight."""
    high: float
    """Largest weight; >= low, and high - low must be finite as a float32."""

    def __post_init__(self) -> None:
        if not (self.low <= self.high and math.isfinite(self.low) and self.high - self.low <= _LARGEST):
            raise ConfigError(f"want finite low <= high, got low {self.low} and high {self.high}")


Initializer = Zeros | Constant | Uniform


def low_and_width(initializer: Initializer) -> tuple[np.float32, np.float32]:
    """Weights are low + width * u with u in [0, 1); a width of 0 makes them constant."""
    if isinstance(initializer, Uniform):
        low = np.float32(initializer.low)
        return low, np.float32(initializer.high) - low
    return np.float32(initializer.value if isinstance(initializer, Constant) else 0.0), np.float32(0.0)


def initial_weights(initializer: Initializer, seed: int, key: int, dim: int) -> Floats:
    """Weights of one slice of a new row, (D,). ``seed`` is the slice's own."""
    low, width = low_and_width(initializer)
    if width == 0:
        return np.full(dim, low, dtype=np.float32)
    stream = mix64(seed ^ key)
    hash_D = mix64_each(np.uint64(stream) + np.arange(dim, dtype=np.uint64))
    # 24 bits fill a float32's mantissa: u is exact and below 1.
    u_D = (hash_D >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return low + width * u_D
