"""Seals come often when they are cheap, and seldom, but not too seldom, when they are dear."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streaming.deltas import DeltaPublisher
from streaming.memory_log import MemoryLog
from training.sync import DeltaSync, SyncConfig
from training.sync_pace import next_period_ms, retry_after_ms

COSTS = st.lists(st.floats(0, 100), min_size=1, max_size=8)


@given(COSTS, st.integers(1, 500), st.integers(1, 10_000))
def test_the_period_stays_within_its_bounds_and_sealing_within_its_share(
    costs_s: list[float], shortest_ms: int, longest_ms: int
) -> None:
    period_ms = next_period_ms(costs_s, shortest_ms=shortest_ms, longest_ms=longest_ms)
    assert min(shortest_ms, longest_ms) <= period_ms <= longest_ms
    taken_ms = 1000 * sum(costs_s) / len(costs_s)
    assert period_ms == longest_ms or taken_ms <= 0.05 * (period_ms + 1)


@given(COSTS, st.floats(0, 100))
def test_dearer_seals_never_come_sooner(costs_s: list[float], more_s: float) -> None:
    bounds = {"shortest_ms": 100, "longest_ms": 400}
    dearer_s = [cost + more_s for cost in costs_s]
    assert next_period_ms(dearer_s, **bounds) >= next_period_ms(costs_s, **bounds)


def test_a_seal_of_ten_milliseconds_comes_every_fifth_of_a_second() -> None:
    assert next_period_ms([0.01] * 8, shortest_ms=100, longest_ms=400) == 200


def test_after_idling_the_next_seal_comes_soon() -> None:
    assert next_period_ms([], shortest_ms=100, longest_ms=400) == 100


def test_retries_come_ever_more_seldom_up_to_a_limit() -> None:
    waits = [retry_after_ms(failures, first_ms=400, longest_ms=5000) for failures in range(1, 8)]
    assert waits == [400, 800, 1600, 3200, 5000, 5000, 5000]


def test_a_sync_is_due_by_what_its_last_seals_cost(small: Any) -> None:
    learner, now_s = small.learner(), [0.0]

    def stopwatch() -> float:
        now_s[0] += 0.01
        return now_s[0]

    config = SyncConfig(model="small-1", incarnation=1)
    sync = DeltaSync(learner, DeltaPublisher(MemoryLog()), config, stopwatch=stopwatch)
    assert sync.is_due(0)
    learner.table.assign(small.keys(1), np.ones((1, 4), np.float32))
    assert sync.seal(as_of_ms=1, sealed_at_ms=1000)
    assert [sync.is_due(now_ms) for now_ms in (1000, 1199, 1200, 900)] == [False, False, True, True]
    assert sync.seal(as_of_ms=1, sealed_at_ms=1200)
    assert sync.period_ms == 100, "there was nothing to send"
