"""What every table promises about scans, ledgers, row numbers, compaction and its figures.

Axes: N keys of one call, D weights of a row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.checks.table_specimens import (
    READS_INITIAL,
    SPEC,
    MakeTable,
    all_rows,
    assert_equal_rows,
    assert_equal_tables,
    drained,
    gradients,
    keys_of,
    row_bits,
    scanned,
)
from recsys.errors import SnapshotError
from recsys.table import (
    FP16,
    EmbeddingTable,
    Expiry,
    Occurrence,
    Probabilistic,
    TableCounters,
    TableSpec,
)
from recsys.table.reference import ReferenceTable

_COUNTING = replace(
    SPEC, admission=Occurrence(threshold=3, width=64, depth=2, window=8), expiry=Expiry(max_idle_s=50)
)


def check_a_scan_sees_each_row_once(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    assert not any(len(rows.keys_N) for rows in scanned(table, 5))
    table.learn(np.arange(50, dtype=np.uint64), gradients(50), event_time_s=3)
    table.erase(np.arange(0, 50, 7, dtype=np.uint64))
    for max_rows in (1, 2, 7, 42, 50, 10_000):
        parts = list(scanned(table, max_rows))
        assert all(len(rows.keys_N) <= max_rows for rows in parts)
        seen_N = np.concatenate([rows.keys_N for rows in parts])
        assert sorted(seen_N.tolist()) == table.keys().tolist()
        for rows in parts:
            assert_equal_rows(rows, table.export_rows(rows.keys_N))


def check_rows_that_stay_are_scanned_once_while_others_come_and_go(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    stays_N = np.arange(0, 40, dtype=np.uint64)
    table.assign(np.arange(100, dtype=np.uint64), gradients(100))
    seen: list[int] = []
    cursor, fresh = 0, 1000
    while not seen or cursor:
        rows, cursor = table.scan(cursor, 6)
        seen += rows.keys_N.tolist()
        table.erase(np.arange(40 + len(seen) % 50, 100, 5, dtype=np.uint64))
        if fresh < 1100:
            table.assign(keys_of(fresh, fresh + 1), gradients(2))
            table.learn(stays_N, gradients(40), event_time_s=1)
            fresh += 2
    assert sorted(key for key in seen if key < 40) == stays_N.tolist()


def check_a_ledger_takes_steps_clock_and_counters_along(make_table: MakeTable) -> None:
    spec = replace(_COUNTING, admission=Occurrence(threshold=2, width=1 << 12))
    table = _after_some_learning(make_table, spec)
    for other in (make_table(spec), ReferenceTable(spec)):
        other.restore_ledger(table.ledger())
        assert (other.steps, other.clock_s, other.counters()) == (
            table.steps,
            table.clock_s,
            table.counters(),
        )
        # The key was seen once before, and is let in at its second time.
        other.learn(keys_of(777), gradients(1), event_time_s=90)
        assert other.contains(keys_of(777)).tolist() == [True]


def check_a_ledger_of_another_rule_is_refused(make_table: MakeTable) -> None:
    specs = [replace(_COUNTING, admission=Occurrence(threshold=3, width=128, depth=2)), SPEC]
    for spec in specs:
        table = _after_some_learning(make_table, spec)
        before = table.ledger()
        for bad in (
            make_table(_COUNTING).ledger(),
            {},
            {**ReferenceTable(spec).ledger(), "steps": np.ones(1)},
        ):
            with pytest.raises(SnapshotError, match=r"got .*, wanted"):
                table.restore_ledger(bad)
        for name, array in table.ledger().items():
            np.testing.assert_array_equal(array, before[name])


def check_a_restored_table_goes_on_as_the_saved_one(make_table: MakeTable) -> None:
    for admission in (_COUNTING.admission, Probabilistic(threshold=3, rule="equal")):
        spec = replace(_COUNTING, admission=admission)
        table = _after_some_learning(make_table, spec)
        for other in (make_table(spec), ReferenceTable(spec)):
            saved = _after_some_learning(make_table, spec)
            other.import_rows(all_rows(saved))
            other.restore_ledger(saved.ledger())
            random = np.random.default_rng(8)
            for step in range(10):
                keys_N = random.integers(0, 40, 12).astype(np.uint64)
                for t in (saved, other):
                    t.learn(keys_N, gradients(12), event_time_s=90 + step)
            assert_equal_tables(other, saved)
            for name, array in other.ledger().items():
                np.testing.assert_array_equal(array, saved.ledger()[name])
        assert len(table) < 40


def _after_some_learning(make_table: MakeTable, spec: TableSpec) -> EmbeddingTable:
    table = make_table(spec)
    random = np.random.default_rng(7)
    for step in range(6):
        keys_N = random.integers(0, 40, 12).astype(np.uint64)
        table.learn(keys_N, gradients(12), event_time_s=15 * step)
    table.learn(keys_of(777), gradients(1), event_time_s=80)
    table.sweep(1000)
    return table


def check_compacting_changes_no_row(make_table: MakeTable) -> None:
    table, left = make_table(SPEC), make_table(SPEC)
    table.compact()
    follower = table.follow()
    for t in (table, left):
        t.learn(np.arange(600, dtype=np.uint64), gradients(600), event_time_s=3)
        t.erase(np.arange(0, 500, dtype=np.uint64))
    before = row_bits(all_rows(table)), table.counters(), table.steps, table.clock_s
    table.compact()
    assert (row_bits(all_rows(table)), table.counters(), table.steps, table.clock_s) == before
    assert len(table.drain(follower).removed_N) == 500
    memory = table.memory()
    assert memory.bytes_reserved == memory.bytes_live
    for t in (table, left):
        t.learn(np.arange(400, 550, dtype=np.uint64), gradients(150), event_time_s=4)
    assert_equal_tables(table, left)


def check_clear_leaves_a_new_table(make_table: MakeTable) -> None:
    table, fresh = make_table(_COUNTING), make_table(_COUNTING)
    follower = table.follow()
    table.learn(np.arange(30, dtype=np.uint64).repeat(3), gradients(90), event_time_s=1)
    table.learn(keys_of(77, 77), gradients(2), event_time_s=70)
    table.sweep(10)
    table.clear()
    assert_equal_tables(table, fresh)
    assert (table.steps, table.clock_s, table.counters()) == (0, 0, TableCounters())
    for name, array in fresh.ledger().items():
        np.testing.assert_array_equal(table.ledger()[name], array)
    assert drained(table, follower) == ([], [])
    for t in (table, fresh):
        t.learn(keys_of(77, 3, 3, 3), gradients(4), event_time_s=1)
    assert_equal_tables(table, fresh)
    assert drained(table, follower) == ([3], [])


def check_calls_without_keys_change_nothing(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    follower = table.follow()
    table.learn(keys_of(), gradients(0), event_time_s=1)
    table.assign(keys_of(), gradients(0))
    table.import_rows(table.export_rows(keys_of()))
    assert table.erase(keys_of()) == table.sweep(10) == table.sweep(0) == 0
    assert table.lookup(keys_of()).shape == (0, SPEC.dim)
    assert len(table) == len(table.keys()) == len(table.drain(follower).touched_N) == 0


def check_counters_tell_what_happened(make_table: MakeTable) -> None:
    table = make_table(
        replace(SPEC, admission=Occurrence(threshold=2, width=1 << 12), expiry=Expiry(max_idle_s=5))
    )
    table.assign(keys_of(1), gradients(1))
    table.learn(keys_of(1, 2, 3, 3), gradients(4), event_time_s=0)
    table.learn(keys_of(2), gradients(1), event_time_s=5)
    table.sweep(10)
    table.erase(keys_of(2))
    assert table.counters() == TableCounters(admitted=3, filtered=1, expired=2)


def check_erased_memory_is_used_again(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    keys_N = np.arange(6000, dtype=np.uint64)
    table.assign(keys_N, gradients(6000))
    full = table.memory()
    assert 0 < full.bytes_live <= full.bytes_reserved
    table.erase(keys_N[:5400])
    assert table.memory().bytes_live == full.bytes_live // 10
    table.assign(keys_N[:5400] + np.uint64(1 << 40), gradients(5400))
    assert table.memory().bytes_live == full.bytes_live
    assert table.memory().bytes_reserved <= full.bytes_reserved


def check_memory_is_told_by_kind(make_table: MakeTable) -> None:
    for part in (SPEC, _COUNTING, _in_halves(SPEC)):
        table, twin = make_table(part), ReferenceTable(part)
        empty, follower = table.memory(), table.follow()
        assert (empty.bytes_live, empty.bytes_reserved) == (0, 0)
        for t in (table, twin):
            t.assign(np.arange(1000, dtype=np.uint64), gradients(1000))
            t.erase(np.arange(300, dtype=np.uint64))
        full = table.memory()
        assert full.bytes_live == twin.memory().bytes_live >= 700 * part.row_bytes
        assert full.bytes_reserved == twin.memory().bytes_reserved
        assert full.bytes_index >= 700 * 8
        assert full.bytes_filter >= twin.memory().bytes_filter
        assert full.bytes_changes >= 8 * 1000
        table.drain(follower)
        table.unfollow(follower)
        assert table.memory().bytes_changes == 0
        table.clear()
        assert table.memory() == empty


def _in_halves(spec: TableSpec) -> TableSpec:
    return replace(spec, slices=tuple(replace(part, codec=FP16()) for part in spec.slices))


def check_a_row_keeps_its_number_until_it_goes(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    assert table.admit(keys_of(7, 8, 7, 9), event_time_s=1).tolist() == [0, 1, 0, 2]
    table.erase(keys_of(8))
    assert table.row_numbers(keys_of(7, 8, 9, 10)).tolist() == [0, -1, 2, -1]
    table.learn(keys_of(10, 9), gradients(2), event_time_s=1)
    table.assign(keys_of(11), gradients(1))
    assert table.row_numbers(keys_of(7, 9, 10, 11)).tolist() == [0, 2, 1, 3]
    table.erase(keys_of(7, 10))
    table.compact()
    assert table.row_numbers(keys_of(11, 9)).tolist() == [1, 0]


def check_admitted_keys_are_seen_but_not_learned(make_table: MakeTable) -> None:
    table = make_table(replace(READS_INITIAL, admission=Occurrence(threshold=2, width=1 << 12)))
    follower, start_ND = table.follow(), table.lookup(keys_of(1, 2))
    assert table.admit(keys_of(1, 2, 2), event_time_s=5).tolist() == [-1, 0, 0]
    assert table.admit(keys_of(1, 2), event_time_s=9).tolist() == [1, 0]
    np.testing.assert_array_equal(table.lookup(keys_of(1, 2)), start_ND)
    rows = all_rows(table)
    assert (rows.count_N.tolist(), rows.last_seen_s_N.tolist()) == ([1, 3], [9, 9])
    assert (table.steps, table.clock_s) == (0, 9)
    assert drained(table, follower) == ([1, 2], [])


UPKEEP = (
    check_a_scan_sees_each_row_once,
    check_rows_that_stay_are_scanned_once_while_others_come_and_go,
    check_a_ledger_takes_steps_clock_and_counters_along,
    check_a_ledger_of_another_rule_is_refused,
    check_compacting_changes_no_row,
    check_clear_leaves_a_new_table,
    check_calls_without_keys_change_nothing,
    check_counters_tell_what_happened,
)
"""For any table."""

NUMBERED = (
    check_a_restored_table_goes_on_as_the_saved_one,
    check_memory_is_told_by_kind,
    check_erased_memory_is_used_again,
    check_a_row_keeps_its_number_until_it_goes,
    check_admitted_keys_are_seen_but_not_learned,
)
"""For tables that number their rows as the reference does."""
