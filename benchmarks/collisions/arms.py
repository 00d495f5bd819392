"""The arms: how each turns a user or a movie into keys of a table, and what that table may keep.

Axes: U users, M movies, P keys that stand for one id and whose rows are added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from collisions.hashing import Places, buckets_for, md5_buckets
from recsys.keys import pack
from recsys.table import FP32, AdmitAll, Codec, Expiry, Occurrence

Keys = NDArray[np.uint64]

USER, MOVIE = 0, 1
QUOTIENT = 2
"""Added to the feature's number for its table of quotients."""
BITS = 52
PAPER_USER_RATE, PAPER_MOVIE_RATE = 0.0773, 0.0286


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Encoding:
    """Which keys stand for each id. Immutable: any number of readers."""

    keys_UP: Keys
    """Of each user."""
    keys_MP: Keys
    """Of each movie."""
    fixed_rows: int | None = None
    """Rows that a plain array has to hold for these keys; None where a table grows row by row."""


Encode = Callable[[int, int, int], Encoding]
"""From the numbers of users and movies and a salt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to hold the embeddings; all else is equal in every arm."""

    name: str
    """In figures."""
    encode: Encode
    """From ids to keys."""
    codec: Codec = field(default_factory=FP32)
    """How weights are stored while they are learned; the optimizer's state stays float32."""
    threshold: int = 0
    """A key gets its row on this occurrence; 0 means at once and without a filter."""
    max_idle_s: int | None = None
    """Rows idle for that long are dropped; None keeps them."""
    expiring: tuple[int, ...] = (USER, MOVIE)
    """Features that ``max_idle_s`` is for; the others keep their rows."""
    is_frozen: bool = False
    """Whether rows stay at their random values and only the dense part learns."""

    @property
    def admission(self) -> AdmitAll | Occurrence:
        """The filter, with a sketch of 2**13 cells a row: about one for each id."""
        return Occurrence(threshold=self.threshold, width=1 << 13) if self.threshold else AdmitAll()

    @property
    def expiry(self) -> Expiry:
        """The log is sorted and its times are right, so no event is ahead of the clock by mistake."""
        limits = {} if self.max_idle_s is None else dict.fromkeys(self.expiring, self.max_idle_s)
        return Expiry(by_feature=limits, max_skew_s=(1 << 32) - 1)


def exact(n_users: int, n_movies: int, salt: int) -> Encoding:
    """A key of its own for each id."""
    del salt
    return Encoding(
        keys_UP=_keys(USER, np.arange(n_users))[:, None], keys_MP=_keys(MOVIE, np.arange(n_movies))[:, None]
    )


def hashed(user_rate: float, movie_rate: float) -> Encode:
    """md5 modulo as many buckets as give these collision rates."""

    def encode(n_users: int, n_movies: int, salt: int) -> Encoding:
        buckets = buckets_for(n_users, user_rate), buckets_for(n_movies, movie_rate)
        return _hashed(n_users, n_movies, buckets, salt)

    return encode


def hashed_into(n_rows: int) -> Encode:
    """md5 modulo ``n_rows`` buckets in all, shared out in proportion to the numbers of ids."""

    def encode(n_users: int, n_movies: int, salt: int) -> Encoding:
        for_users = max(1, round(n_rows * n_users / (n_users + n_movies)))
        return _hashed(n_users, n_movies, (for_users, max(1, n_rows - for_users)), salt)

    return encode


def quotient_remainder(remainders_for: Callable[[int], int]) -> Encode:
    """id = q·m + r has the row E_q + E_r; ``remainders_for`` gives m for a number of ids.

    Ids are shuffled by the salt first: neighbours in the owners' numbering are alike.
    Reference: Shi et al., "Compositional Embeddings", KDD 2020, arXiv:1909.02107.
    """

    def encode(n_users: int, n_movies: int, salt: int) -> Encoding:
        random = np.random.default_rng([salt, 2])
        parts, rows = [], 0
        for feature, n in ((USER, n_users), (MOVIE, n_movies)):
            m = remainders_for(n)
            shuffled = random.permutation(n)
            both = [_keys(feature, shuffled % m), _keys(feature + QUOTIENT, shuffled // m)]
            parts.append(np.stack(both, axis=1))
            rows += m + math.ceil(n / m)
        return Encoding(keys_UP=parts[0], keys_MP=parts[1], fixed_rows=rows)

    return encode


def square_root(n: int) -> int:
    """As many remainders as quotients, the least memory: what the paper's baseline does with 48-bit ids."""
    return math.isqrt(n - 1) + 1


def half(n: int) -> int:
    """Two quotients: about the memory of a hashed table with a collision rate of 44 %."""
    return (n + 1) // 2


def _hashed(n_users: int, n_movies: int, buckets: tuple[int, int], salt: int) -> Encoding:
    return Encoding(
        keys_UP=_keys(USER, md5_buckets(n_users, buckets[0], f"{salt}:user"))[:, None],
        keys_MP=_keys(MOVIE, md5_buckets(n_movies, buckets[1], f"{salt}:movie"))[:, None],
        fixed_rows=sum(buckets),
    )


def _keys(feature: int, place_I: Places) -> Keys:
    return pack(feature, [place_I], [BITS])


def main_arms() -> list[Arm]:
    """What is compared over epochs; the first is what all others are compared with."""
    return [
        Arm(name="exact", encode=exact),
        Arm(name="hashed_paper", encode=hashed(PAPER_USER_RATE, PAPER_MOVIE_RATE)),
        Arm(name="hashed_20", encode=hashed(0.2, 0.2)),
        Arm(name="hashed_50", encode=hashed(0.5, 0.5)),
        Arm(name="quotient_remainder_half", encode=quotient_remainder(half)),
        Arm(name="quotient_remainder_sqrt", encode=quotient_remainder(square_root)),
        Arm(name="frozen_random", encode=exact, is_frozen=True),
    ]
