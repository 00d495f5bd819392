"""How many ids share a bucket, and how many buckets make a given share of them do so.

n ids thrown into M buckets fill M(1 − e^(−n/M)) of them on average. The collision rate is the share of
ids by which the filled buckets fall short, 1 − filled/n: what Liu et al., *Monolith*, 2022, sec. 3.1.1,
report for users (7.73 %) and movies (2.86 %) of MovieLens-25M. More ids than that share a bucket, since
both ids of a clashing pair do.

Axes: I ids.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError

Places = NDArray[np.int64]
Buckets = NDArray[np.int64] | NDArray[np.uint64]


def expected_rate(n_ids: int, n_buckets: int) -> float:
    """Mean collision rate of ``n_ids`` in ``n_buckets``."""
    return 1.0 - n_buckets / n_ids * -math.expm1(-n_ids / n_buckets)


def buckets_for(n_ids: int, rate: float) -> int:
    """The number of buckets whose expected collision rate is closest below ``rate``, which is in (0, 1)."""
    if not 0.0 < rate < 1.0 or n_ids < 1:
        raise ConfigError(f"want at least one id and a rate between 0 and 1, got {n_ids} and {rate}")
    low, high = 1, 2
    while expected_rate(n_ids, high) > rate:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if expected_rate(n_ids, middle) > rate else (low, middle)
    return high


def md5_buckets(n_ids: int, n_buckets: int, salt: str) -> Places:
    """Bucket of each of the ids 0 to n_ids - 1, (I,): md5 of the salted id, modulo ``n_buckets``."""
    digests = (hashlib.md5(f"{salt}:{i}".encode(), usedforsecurity=False).digest() for i in range(n_ids))
    return np.array([int.from_bytes(digest, "big") % n_buckets for digest in digests], dtype=np.int64)


def collision_rate(bucket_I: Buckets) -> float:
    """Share of the ids by which the distinct buckets fall short of them."""
    return 1.0 - len(np.unique(bucket_I)) / len(bucket_I)


def sharing(bucket_I: Buckets) -> NDArray[np.bool_]:
    """Whether another id lies in the same bucket, (I,)."""
    _, place_I, size = np.unique(bucket_I, return_inverse=True, return_counts=True)
    shared_I: NDArray[np.bool_] = size[place_I] > 1
    return shared_I
