"""Streams of 64-bit keys for benchmarks: uniform, or zipf by popularity, hashed so that no order is left.

Axes: B batches of N ids. A key is the splitmix64 hash of its rank, so two streams of the same universe
share their keys. Everything is drawn before anything is timed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.hashing import mix64_each

Ids = NDArray[np.uint64]
Draw = Literal["zipf", "uniform"]

ZIPF_EXPONENT = 1.05
CHUNK = 1 << 20
UNIVERSES = {1_000_000: 4_000_000, 16_000_000: 64_000_000, 64_000_000: 100_000_000}
"""How many ids exist beside a table of so many rows, where more must come than the table can hold."""


def universe_keys(n: int, *, first: int = 0) -> Ids:
    """The keys of ranks first to first + n - 1, (n,); universes that do not overlap share no key."""
    return mix64_each(np.arange(first, first + n, dtype=np.uint64))


def key_batches(draw: Draw, shape_BN: tuple[int, int], universe: int, *, seed: int, first: int = 0) -> Ids:
    """Batches of keys, (B, N), of ranks first to first + universe - 1; the lowest are the most frequent."""
    random = np.random.default_rng(seed)
    n = shape_BN[0] * shape_BN[1]
    ranks_N = zipf_ranks(random, n, universe) if draw == "zipf" else random.integers(0, universe, n)
    return mix64_each(ranks_N.astype(np.uint64) + np.uint64(first)).reshape(shape_BN)


def zipf_ranks(random: np.random.Generator, n: int, universe: int) -> NDArray[np.int64]:
    """Ranks in [0, universe), (n,): rank k has probability proportional to (k + 1) ** -ZIPF_EXPONENT.

    Rejection-inversion (Hörmann and Derflinger, ACM TOMACS 1996): exact, without a table of the universe.
    """
    drawn = np.empty(n, dtype=np.int64)
    have = 0
    while have < n:
        part = _accepted(random, min(n - have, CHUNK), universe)
        drawn[have : have + len(part)] = part
        have += len(part)
    return drawn - 1


def _accepted(random: np.random.Generator, n: int, universe: int) -> NDArray[np.int64]:
    low, high = float(_area(np.array(1.5))) - 1.0, float(_area(np.array(universe + 0.5)))
    area_N = random.uniform(low, high, n)
    x_N = _area_inverse(area_N)
    k_N = np.clip(np.rint(x_N), 1, universe)
    accept_N = area_N >= _area(k_N + 0.5) - k_N**-ZIPF_EXPONENT
    return k_N[accept_N].astype(np.int64)


def _area(x_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """The integral of t ** -ZIPF_EXPONENT from 1 to each x."""
    power = 1.0 - ZIPF_EXPONENT
    return np.expm1(power * np.log(x_N)) / power


def _area_inverse(area_N: NDArray[np.float64]) -> NDArray[np.float64]:
    power = 1.0 - ZIPF_EXPONENT
    return np.exp(np.log1p(power * area_N) / power)
