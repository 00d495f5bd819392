"""What a trainer does that falls behind its examples.

*catch_up* learns everything, later. *thin* learns every positive and a share s of the negatives, and
says so: the sample rate of every row is multiplied by s, positives too, so the learner's correction
stays right. Which negatives stay follows from request and item alone, but s follows from the clock: a
thinned run that is killed does not end in the bits of an undisturbed one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.errors import ConfigError
from recsys.hashing import mix64, mix64_each
from recsys.interactions import ExampleBatch, Mask
from streaming.statements import item_keys, request_hash

_ALL = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LagConfig:
    """When a trainer counts as behind, and what it does then."""

    policy: Literal["catch_up", "thin"] = "catch_up"
    """Learn everything late, or fewer negatives."""
    max_records: int = 1_000
    """Unread messages up to which nothing is done; > 0."""
    max_wait_ms: int = 60_000
    """How long messages may wait in the log before something is done; > 0."""
    least_share: float = 1 / 16
    """The share never falls below this; in (0, 1]."""
    seed: int = 0
    """Which negatives stay."""

    def __post_init__(self) -> None:
        for name in ("max_records", "max_wait_ms"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        if not 0.0 < self.least_share <= 1.0:
            raise ConfigError(f"least_share must be in (0, 1], got {self.least_share}")
        if self.policy not in ("catch_up", "thin"):
            raise ConfigError(f"policy must be catch_up or thin, got {self.policy!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far behind the log's end a trainer is."""

    records: int = 0
    wait_ms: int = 0
    """Wall time that the newest message learned had waited; 0: unknown."""


def next_share(share: float, before: Lag, now: Lag, config: LagConfig) -> float:
    """Share of negatives to learn from now on: halved while the lag grows, kept while it falls, and
    doubled again step by step once it is within bounds. Always 1 where the policy is to catch up."""
    if config.policy == "catch_up":
        return 1.0
    if now.records <= config.max_records and now.wait_ms <= config.max_wait_ms:
        return min(1.0, 2 * share)
    is_falling = now.records < before.records or now.wait_ms < before.wait_ms
    return share if is_falling else max(config.least_share, share / 2)


def thinned(batch: ExampleBatch, share: float, seed: int) -> ExampleBatch:
    """The batch without all but a share of the rows that state nothing but 0, sample rates multiplied by it.

    The draw is one per (request, item): a row that takes a negative back stays where that negative does,
    as long as the share is the same. It is independent of the joiner's draw among the same negatives.
    """
    if share >= 1.0:
        return batch
    hash_B = np.array([request_hash(name) for name in batch.request_id_B], np.uint64)
    # The joiner draws from the same keys with its seed mixed once: mixed twice, the same seed is another.
    draw_B = mix64_each(item_keys(hash_B, batch.item_id_B) ^ np.uint64(mix64(mix64(seed))))
    says_yes_B = (np.nan_to_num(batch.label_BL) != 0).any(axis=1)
    is_kept_B: Mask = says_yes_B | (draw_B < np.uint64(int(share * _ALL)))
    kept = batch.take(np.flatnonzero(is_kept_B))
    return dataclasses.replace(kept, sample_rate_BL=kept.sample_rate_BL * np.float32(share))
