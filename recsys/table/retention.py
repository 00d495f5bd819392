"""Which rows may stay: expiry by event time, and eviction under a cap by score.

``cpp/retention.h`` computes the same bits. Event times are whole seconds in 32 bits. The clock is the
largest event time that a table accepted, so a stream that stalls ages nothing.

Axes: W candidates of one eviction, in row order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, ShapeError
from recsys.keys import MAX_FEATURE, VALUE_BITS

Counts = NDArray[np.uint32]
Keys = NDArray[np.uint64]
Times = NDArray[np.uint32]
Mask = NDArray[np.bool_]
Scores = NDArray[np.float64]
Positions = NDArray[np.intp]

_LARGEST_TIME = (1 << 32) - 1
_LARGEST_EXPONENT = 16
_LARGEST_CAPACITY = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """A row goes when nothing has touched it for as long as its feature allows."""

    max_idle_s: int | None = None
    """For features that ``by_feature`` does not name, >= 1; None keeps their rows."""
    by_feature: Mapping[int, int] | tuple[tuple[int, int], ...] = ()
    """Idle limit in seconds, >= 1, of each named feature (the top 12 bits of a key).
    Given as a mapping or as pairs; held as pairs sorted by feature, so that settings can be hashed."""
    max_skew_s: int = 3600
    """An event may be this far ahead of the clock, >= 0; a later one counts as just that far ahead,
    since a single wrong date would otherwise expire every row."""

    def __post_init__(self) -> None:
        if self.max_idle_s is not None:
            _check_whole("max_idle_s", self.max_idle_s, 1, _LARGEST_TIME)
        _check_whole("max_skew_s", self.max_skew_s, 0, _LARGEST_TIME)
        try:
            limits = dict(self.by_feature)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"by_feature must map features to seconds, got {self.by_feature!r}") from error
        if len(limits) != len(self.by_feature):
            raise ConfigError(f"by_feature must name each feature once, got {self.by_feature!r}")
        for feature, limit_s in limits.items():
            _check_whole("a feature in by_feature", feature, 0, MAX_FEATURE)
            _check_whole(f"by_feature[{feature}]", limit_s, 1, _LARGEST_TIME)
        object.__setattr__(self, "by_feature", tuple(sorted(limits.items())))


@dataclass(frozen=True, slots=True, kw_only=True)
class LFU:
    """Rows touched least often go first: score = count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LRU:
    """Rows idle longest go first: score = last_seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceLFU:
    """Old touches count for less: score = count / (clock - last_seen + 1)^exponent."""

    exponent: int = 1
    """How fast idleness outweighs counts, 1 to 16."""

    def __post_init__(self) -> None:
        _check_whole("exponent", self.exponent, 1, _LARGEST_EXPONENT)


EvictionPolicy = LFU | LRU | DistanceLFU


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How much a table may hold; exactly one of the two limits is given."""

    max_rows: int | None = None
    """Rows, >= 1."""
    max_bytes: int | None = None
    """Bytes of rows and index, >= 1."""
    policy: EvictionPolicy = LRU()
    """Which rows make room; those with the lowest score go."""

    def __post_init__(self) -> None:
        if (self.max_rows is None) == (self.max_bytes is None):
            got = f"max_rows {self.max_rows} and max_bytes {self.max_bytes}"
            raise ConfigError(f"give exactly one of max_rows and max_bytes, got {got}")
        if self.max_bytes is None:
            _check_whole("max_rows", self.max_rows, 1, _LARGEST_CAPACITY)
        else:
            _check_whole("max_bytes", self.max_bytes, 1, _LARGEST_CAPACITY)
        if not isinstance(self.policy, get_args(EvictionPolicy)):
            raise ConfigError(f"{self.policy!r} is not an eviction policy")


def idle_limit_s(expiry: Expiry, feature: int) -> int | None:
    """How long rows of a feature may idle, in seconds; None is for ever."""
    return dict(expiry.by_feature).get(feature, expiry.max_idle_s)


def is_expired(expiry: Expiry, key: int, last_seen_s: int, clock_s: int) -> bool:
    """Whether the row of ``key`` has idled for its feature's limit or longer."""
    limit_s = idle_limit_s(expiry, key >> VALUE_BITS)
    return limit_s is not None and clock_s - last_seen_s >= limit_s


def are_expired(expiry: Expiry, keys_N: Keys, last_seen_s_N: Times, clock_s: int) -> Mask:
    """``is_expired`` of each row, (N,)."""
    max_idle_s, _, by_feature = core_expiry(expiry)
    limit_N = np.full(len(keys_N), max_idle_s, dtype=np.int64)
    if len(by_feature):
        limit_N = by_feature[keys_N >> np.uint64(VALUE_BITS)].astype(np.int64)
    is_old_N: Mask = clock_s - last_seen_s_N.astype(np.int64) >= limit_N
    return is_old_N & (limit_N > 0)


def core_expiry(expiry: Expiry) -> tuple[int, int, Times]:
    """The native (max_idle_s, max_skew_s, by_feature), where a limit of 0 is for ever.

    ``by_feature`` holds the limit of each of 4096 features, or is empty if they are all alike.
    """
    limits = np.full(MAX_FEATURE + 1 if expiry.by_feature else 0, expiry.max_idle_s or 0, dtype=np.uint32)
    for feature, limit_s in dict(expiry.by_feature).items():
        limits[feature] = limit_s
    return expiry.max_idle_s or 0, expiry.max_skew_s, limits


def accepted_time(event_time_s: int, clock_s: int | None, max_skew_s: int) -> int:
    """The time an event counts at; the clock is then the larger of the two. No clock takes any time."""
    return event_time_s if clock_s is None else min(event_time_s, clock_s + max_skew_s)


def scores(policy: EvictionPolicy, count_W: Counts, last_seen_W: Times, clock_s: int) -> Scores:
    """How much each row deserves to stay, (W,). A row seen after the clock counts as seen at it."""
    if isinstance(policy, LFU):
        return count_W.astype(np.float64)
    if isinstance(policy, LRU):
        return last_seen_W.astype(np.float64)
    age_W = np.maximum(clock_s - last_seen_W.astype(np.int64), 0).astype(np.float64) + 1.0
    divisor_W = age_W.copy()
    for _ in range(policy.exponent - 1):
        divisor_W *= age_W
    return count_W.astype(np.float64) / divisor_W


def core_score(policy: EvictionPolicy) -> tuple[int, int]:
    """The native (Score, exponent) of a policy."""
    if isinstance(policy, DistanceLFU):
        return 2, policy.exponent
    return (0 if isinstance(policy, LFU) else 1), 1


def victims(scores_W: Scores, last_seen_W: Times, n: int) -> Positions:
    """The n candidates that go, as ascending positions: first n (or all) by (score, last_seen, position)."""
    if scores_W.shape != last_seen_W.shape or scores_W.ndim != 1:
        raise ShapeError(f"want one score per last_seen, got {scores_W.shape} and {last_seen_W.shape}")
    position_W = np.arange(len(scores_W))
    return np.sort(np.lexsort((position_W, last_seen_W, scores_W))[:n])


def _check_whole(name: str, value: int | None, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} must be an integer in {low}..{high}, got {value!r}")
