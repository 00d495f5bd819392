"""What every table promises about which keys may have a row, for how long, and which make room.

Axes: N keys of one call, D weights of a row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.checks import table_settings
from recsys.checks.table_specimens import SPEC, MakeTable, all_rows, bits, gradients, keys_of, row_bits
from recsys.table import (
    LFU,
    LRU,
    Admission,
    Capacity,
    DistanceLFU,
    EmbeddingTable,
    Expiry,
    Occurrence,
    Probabilistic,
)
from recsys.table.reference import ReferenceTable
from recsys.table.retention import EvictionPolicy

_HOUR = 3600
_BY_FEATURE = replace(SPEC, expiry=Expiry(max_idle_s=10, by_feature={1: 100}, max_skew_s=1000))


def learn(table: EmbeddingTable, *keys: int, at: int = 1) -> None:
    """One step of all keys along a gradient of 1."""
    table.learn(keys_of(*keys), gradients(len(keys)), event_time_s=at)


def check_a_key_gets_its_row_on_the_occurrence_that_the_threshold_names(make_table: MakeTable) -> None:
    table = make_table(replace(SPEC, admission=Occurrence(threshold=3, width=1 << 12)))
    learn(table, 1, 2, 1)
    assert len(table) == 0
    learn(table, 1, 2)
    assert table.keys().tolist() == [1]
    # The row starts with the gradient that let it in; earlier ones are not made up for.
    assert table.lookup(keys_of(1))[0, 0] == -1.0
    assert all_rows(table).count_N.tolist() == [1]
    learn(table, 3, 3, 3)
    assert table.keys().tolist() == [1, 3]
    assert (table.counters().admitted, table.counters().filtered) == (2, 3)


def check_a_key_with_a_row_is_never_filtered(make_table: MakeTable) -> None:
    for rule in (Occurrence(threshold=100, width=16), Probabilistic(threshold=65_535, rule="linear")):
        table = make_table(replace(SPEC, admission=rule))
        table.assign(keys_of(1), gradients(1, 0.0))
        table.import_rows(replace(table.export_rows(keys_of(1)), keys_N=keys_of(2)))
        learn(table, 1, 2)
        assert table.lookup(keys_of(1, 2))[:, 0].tolist() == [-1.0, -1.0]
        assert table.counters().filtered == 0


def check_chance_lets_in_as_many_as_it_says(make_table: MakeTable) -> None:
    keys_N = np.arange(2000, dtype=np.uint64)
    # One occurrence of 10 enters with 1 - 0.05**0.1 under the equal rule: a quarter.
    for rule, share in [
        (Probabilistic(threshold=10, rule="linear"), 0.1),
        (Probabilistic(threshold=10, rule="equal"), 0.2589),
    ]:
        table = make_table(replace(SPEC, admission=rule))
        table.learn(keys_N, gradients(2000), event_time_s=1)
        assert abs(len(table) / 2000 - share) < 0.04
        assert table.counters().admitted == len(table)
        assert table.counters().filtered == 2000 - len(table)


def check_idle_rows_are_swept_and_counted(make_table: MakeTable) -> None:
    table = make_table(_BY_FEATURE)
    slow, fast = (1 << 52) + 7, 7  # of features 1 and 0
    learn(table, slow, fast, at=1000)
    learn(table, 8, at=1009)
    assert table.sweep(100) == 0
    learn(table, 8, at=1010)
    follower = table.follow()
    assert table.sweep(100) == 1
    assert table.contains(keys_of(slow, fast, 8)).tolist() == [True, False, True]
    assert table.drain(follower).removed_N.tolist() == [fast]
    learn(table, 9, at=1100)
    assert table.sweep(100) == 2
    assert table.keys().tolist() == [9]
    assert table.counters().expired == 3


def check_nothing_expires_unless_asked_to(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    learn(table, 1, at=0)
    for at in (3600, 7200):
        learn(table, 2, at=at)
    assert table.sweep(10) == 0
    assert table.counters().expired == 0


def check_a_wrong_date_moves_the_clock_by_no_more_than_the_skew(make_table: MakeTable) -> None:
    table = make_table(replace(SPEC, expiry=Expiry(max_idle_s=2 * _HOUR)))
    assert table.clock_s == 0
    learn(table, 1, at=1_000_000)
    learn(table, 2, at=2**32 - 1)
    assert table.clock_s == 1_000_000 + _HOUR
    assert all_rows(table).last_seen_s_N.tolist() == [1_000_000, 1_000_000 + _HOUR]
    assert table.sweep(10) == 0
    learn(table, 3, at=5)
    assert table.clock_s == 1_000_000 + _HOUR
    assert table.export_rows(keys_of(3)).last_seen_s_N.tolist() == [5]


def check_below_its_capacity_a_table_loses_nothing(make_table: MakeTable) -> None:
    keys_N = np.arange(3000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    # Shards have equal parts of a capacity, and not quite equal numbers of keys.
    table = make_table(replace(SPEC, capacity=Capacity(max_rows=4000)))
    held: dict[int, float] = {}
    random = np.random.default_rng(2)
    for _ in range(30):
        asked_N = random.choice(keys_N, 200)
        table.learn(asked_N, gradients(200), event_time_s=1)
        for key in asked_N.tolist():
            held[key] = held.get(key, 0.0) - 1.0
    assert table.keys().tolist() == sorted(held)
    assert table.lookup(table.keys())[:, 0].tolist() == [held[key] for key in sorted(held)]
    assert (table.counters().evicted, table.counters().filtered) == (0, 0)


def check_a_full_table_stays_within_its_capacity(make_table: MakeTable) -> None:
    for capacity in (Capacity(max_rows=100), Capacity(max_bytes=20_000)):
        table = make_table(replace(SPEC, capacity=capacity))
        follower = table.follow()
        held: set[int] = set()
        for begin in range(0, 2000, 50):
            table.assign(np.arange(begin, begin + 50, dtype=np.uint64), gradients(50))
            changes = table.drain(follower)
            held = (held | set(changes.touched_N.tolist())) - set(changes.removed_N.tolist())
            assert held == set(table.keys().tolist())
            assert len(table) <= (capacity.max_rows or 20_000 // SPEC.row_bytes)
        counters = table.counters()
        assert counters.evicted > 1000
        assert counters.admitted - counters.evicted == len(table)


def check_keys_of_the_batch_are_never_evicted(make_table: MakeTable) -> None:
    for policy in (LRU(), LFU(), DistanceLFU()):
        table = make_table(replace(SPEC, capacity=Capacity(max_rows=10, policy=policy)))
        for begin in range(0, 100, 5):
            # The first two have rows already, and the lowest scores: seen least and longest ago.
            batch = [*table.keys().tolist()[:2], *range(begin, begin + 7)]
            learn(table, *batch, at=max(0, 50 - begin))
            assert table.contains(keys_of(*batch)).all()
            assert len(table) <= 10


def check_a_batch_larger_than_the_table_fills_it_and_the_rest_is_filtered(make_table: MakeTable) -> None:
    table = make_table(replace(SPEC, capacity=Capacity(max_rows=5)))
    learn(table, *range(8))
    assert table.keys().tolist() == [0, 1, 2, 3, 4]
    assert table.admit(keys_of(4, 9), event_time_s=1)[0] >= 0
    assert table.counters().evicted == 1
    table.assign(np.arange(20, 30, dtype=np.uint64), gradients(10))
    assert table.keys().tolist() == [20, 21, 22, 23, 24]
    assert table.counters().filtered == 3 + 5


def check_the_lowest_score_makes_room(make_table: MakeTable) -> None:
    # Each key: how often, and when last. The clock ends at 100.
    seen = {1: (9, 10), 2: (1, 90), 3: (4, 50), 4: (2, 100)}
    first: list[tuple[EvictionPolicy, int]] = [
        (LRU(), 1),
        (LFU(), 2),
        (DistanceLFU(), 3),
        (DistanceLFU(exponent=8), 1),
    ]
    for policy, victim in first:
        table = make_table(replace(SPEC, capacity=Capacity(max_rows=4, policy=policy)))
        for key, (count, at) in seen.items():
            learn(table, *[key] * count, at=at)
        learn(table, 9, at=100)
        assert set(seen) - set(table.keys().tolist()) == {victim}, policy


def check_equal_scores_are_settled_by_age_and_then_by_row(make_table: MakeTable) -> None:
    table = make_table(replace(SPEC, capacity=Capacity(max_rows=3, policy=LFU())))
    learn(table, 1, at=30)
    learn(table, 2, 3, at=20)
    learn(table, 4, at=30)
    assert table.keys().tolist() == [1, 3, 4]
    assert table.row_numbers(keys_of(1, 3, 4)).tolist() == [0, 2, 1]


def check_evictions_are_those_of_the_reference(make_table: MakeTable) -> None:
    """Over several windows of rows, with expiry and erasure between, whatever the policy."""

    @given(
        capacity=table_settings.CAPACITIES,
        max_rows=st.sampled_from([40, 256, 257, 700]),
        admission=table_settings.ADMISSIONS,
        seed=st.integers(0, 999),
    )
    @settings(max_examples=12, deadline=None, database=None)
    def equal(capacity: Capacity, max_rows: int, admission: Admission, seed: int) -> None:
        spec = replace(
            SPEC,
            capacity=replace(capacity, max_rows=max_rows),
            admission=admission,
            expiry=Expiry(max_idle_s=60),
        )
        table, twin = make_table(spec), ReferenceTable(spec)
        random = np.random.default_rng(seed)
        for step in range(25):
            keys_N = random.zipf(1.2, 90).astype(np.uint64) % np.uint64(3 * max_rows)
            at = int(random.integers(10 * step, 10 * step + 50))
            for t in (table, twin):
                t.learn(keys_N, gradients(90), event_time_s=at)
                t.erase(keys_N[:2])
                t.sweep(17)
            assert bits(table.keys()) == bits(twin.keys())
            assert bits(table.row_numbers(table.keys())) == bits(twin.row_numbers(twin.keys()))
        assert table.counters() == twin.counters()
        assert row_bits(all_rows(table)) == row_bits(all_rows(twin))

    equal()


def check_a_sweep_looks_at_no_more_rows_than_asked(make_table: MakeTable) -> None:
    table = make_table(replace(SPEC, expiry=Expiry(max_idle_s=10)))
    learn(table, *range(10), at=0)
    learn(table, 10, at=10)
    assert [table.sweep(3) for _ in range(5)] == [3, 3, 3, 1, 0]
    assert table.keys().tolist() == [10]


def check_a_cap_in_bytes_holds_for_rows_and_index(make_table: MakeTable) -> None:
    for max_bytes, share in [(5000, 0.2), (1 << 16, 0.9), (200_000, 0.9)]:
        table = make_table(replace(SPEC, capacity=Capacity(max_bytes=max_bytes)))
        for begin in range(0, 5000, 1000):
            table.assign(np.arange(begin, begin + 1000, dtype=np.uint64), gradients(1000))
        memory = table.memory()
        used = memory.bytes_reserved + memory.bytes_index
        assert share * max_bytes < used <= max_bytes


RETENTION = (
    check_a_key_gets_its_row_on_the_occurrence_that_the_threshold_names,
    check_a_key_with_a_row_is_never_filtered,
    check_chance_lets_in_as_many_as_it_says,
    check_idle_rows_are_swept_and_counted,
    check_nothing_expires_unless_asked_to,
    check_a_wrong_date_moves_the_clock_by_no_more_than_the_skew,
)
"""For any table."""

ROOM = (
    check_below_its_capacity_a_table_loses_nothing,
    check_a_full_table_stays_within_its_capacity,
    check_keys_of_the_batch_are_never_evicted,
    check_a_batch_larger_than_the_table_fills_it_and_the_rest_is_filtered,
    check_the_lowest_score_makes_room,
    check_equal_scores_are_settled_by_age_and_then_by_row,
    check_evictions_are_those_of_the_reference,
    check_a_sweep_looks_at_no_more_rows_than_asked,
    check_a_cap_in_bytes_holds_for_rows_and_index,
)
"""For tables that number their rows as the reference does."""
