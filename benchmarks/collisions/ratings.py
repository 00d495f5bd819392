"""MovieLens ratings as two ids, a label and a time, and the ways to part them.

Axes: N ratings in time order, F ratings to fit on, V to choose by, T to report on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.datasets.movielens import load_movielens

Places = NDArray[np.int64]
Floats = NDArray[np.float32]

LIKED_STARS = 3.5
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratings:
    """Who liked what, oldest first. Immutable: any number of readers."""

    user_N: Places
    """Place of the user among all users, from 0."""
    movie_N: Places
    """Place of the movie among all movies, from 0."""
    label_N: Floats
    """1 for 3.5 stars or more, else 0."""
    time_s_N: Places
    """Seconds since 1970; never falls."""
    n_users: int
    """Distinct users."""
    n_movies: int
    """Distinct movies."""

    def __len__(self) -> int:
        return len(self.label_N)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Places of ratings; no rating is in two parts."""

    fit_F: Places
    """Learned from."""
    validation_V: Places
    """Settings and the epoch are chosen by these alone."""
    test_T: Places
    """Reported on, never chosen by."""


def read_ratings(folder: Path | None, cache_dir: Path, limit: int | None = None) -> Ratings:
    """MovieLens from ``folder`` or the registry; only the oldest ``limit`` ratings where one is given."""
    log = load_movielens(folder, cache_dir).log
    user_ids, user_N = np.unique(log.user_id_N[:limit], return_inverse=True)
    movie_ids, movie_N = np.unique(log.item_id_N[:limit], return_inverse=True)
    return Ratings(
        user_N=user_N.astype(np.int64),
        movie_N=movie_N.astype(np.int64),
        label_N=(log.value_NK[:limit, 0] >= LIKED_STARS).astype(np.float32),
        time_s_N=(log.event_time_ms_N + log.delay_ms_N)[:limit] // 1000,
        n_users=len(user_ids),
        n_movies=len(movie_ids),
    )


def random_split(n: int, seed: int) -> Split:
    """A fifth to test on and a tenth of the rest to choose by, drawn afresh for each seed."""
    return _parted(np.random.default_rng([seed, 1]).permutation(n))


def temporal_split(n: int, seed: int) -> Split:
    """The newest fifth to test on, and the newest tenth of the rest to choose by; whatever the seed."""
    del seed
    return _parted(np.arange(n))


def _parted(order_N: Places) -> Split:
    test_from = round(len(order_N) * (1 - TEST_SHARE))
    validation_from = round(test_from * (1 - VALIDATION_SHARE))
    return Split(
        fit_F=order_N[:validation_from],
        validation_V=order_N[validation_from:test_from],
        test_T=order_N[test_from:],
    )
