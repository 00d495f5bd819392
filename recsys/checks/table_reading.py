"""What every table promises about reading rows, and about being given and relieved of them.

Axes: N keys of one call, D weights of a row.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.checks.table_specimens import (
    READS_INITIAL,
    SPEC,
    MakeTable,
    all_rows,
    assert_equal_tables,
    bags_of,
    bits,
    gradients,
    keys_of,
)
from recsys.table.table import TableRows

_LARGEST = 2**32 - 1


def check_a_missing_key_reads_as_zeros_and_stays_missing(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    table.learn(keys_of(1), gradients(1), event_time_s=1)
    assert not table.lookup(keys_of(7, 8)).any()
    assert table.contains(keys_of(7, 1, 8)).tolist() == [False, True, False]
    assert len(table) == 1


def check_a_missing_key_reads_as_the_row_it_would_get(make_table: MakeTable) -> None:
    table = make_table(READS_INITIAL)
    before_ND = table.lookup(keys_of(7))
    assert before_ND[0, 1:].all()
    table.learn(keys_of(7), gradients(1, value=0.0), event_time_s=1)
    np.testing.assert_array_equal(table.lookup(keys_of(7)), before_ND)


def check_initial_weights_do_not_depend_on_order(make_table: MakeTable) -> None:
    one, other = make_table(SPEC), make_table(SPEC)
    keys_N = np.arange(50, dtype=np.uint64)
    one.learn(keys_N, gradients(50, 0.0), event_time_s=1)
    for key in keys_N[::-1]:
        other.learn(keys_of(key), gradients(1, 0.0), event_time_s=1)
    assert_equal_tables(one, other)
    assert len(np.unique(one.lookup(keys_N)[:, 1:])) > 140  # draws differ between keys and columns


def check_a_bag_is_the_scaled_sum_of_its_rows_in_order(make_table: MakeTable) -> None:
    for spec in (SPEC, READS_INITIAL):
        table = make_table(spec)
        table.assign(keys_of(1, 2, 3), np.array([[1e8] * 4, [1.0] * 4, [-1e8] * 4], dtype=np.float32))
        asked_N = keys_of(1, 2, 3, 9, 3, 1, 2, 2)
        rows_ND = table.lookup(asked_N)
        got_BD = table.lookup_bags(asked_N, bags_of(4, 0, 3, 1, scale=[2.0, 5.0, -1.0, 0.5]))
        # float32 forgets the 1 where it comes between the large ones, and keeps it where it comes last.
        first_D = ((rows_ND[0] + rows_ND[1]) + rows_ND[2]) + rows_ND[3]
        want_BD = np.stack([first_D * np.float32(2), np.zeros(4), [-1.0] * 4, [0.5] * 4]).astype(np.float32)
        np.testing.assert_array_equal(got_BD, want_BD)
        assert not table.contains(keys_of(9)).any()


def check_bags_without_a_scale_are_plain_sums(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    table.assign(keys_of(1, 2), np.array([[1.0] * 4, [2.0] * 4], dtype=np.float32))
    sums_BD = table.lookup_bags(keys_of(1, 2, 2), bags_of(0, 3, 0))
    assert sums_BD.tolist() == [[0.0] * 4, [5.0] * 4, [0.0] * 4]
    assert table.lookup_bags(keys_of(), bags_of(0, 0)).tolist() == [[0.0] * 4] * 2
    assert table.lookup_bags(keys_of(), bags_of()).shape == (0, 4)


def check_the_last_of_equal_keys_is_assigned(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    table.assign(keys_of(7, 8, 7), np.concatenate([gradients(1, v) for v in (1.0, 2.0, 3.0)]))
    assert table.lookup(keys_of(7, 8))[:, 0].tolist() == [3.0, 2.0]
    np.testing.assert_array_equal(table.export_rows(keys_of(7)).state_NS, np.full((1, 3), 0.1, np.float32))


def check_assigned_rows_keep_state_time_and_count(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    table.learn(keys_of(7, 7), gradients(2), event_time_s=9)
    before = table.export_rows(keys_of(7))
    table.assign(keys_of(7, 8), gradients(2, 5.0))
    after = table.export_rows(keys_of(7, 8))
    assert after.weights_ND.tolist() == [[5.0] * 4] * 2
    assert bits(after.state_NS[:1]) == bits(before.state_NS)
    assert after.last_seen_s_N.tolist() == [9, 0]
    assert after.count_N.tolist() == [2, 0]


def check_an_erased_key_starts_afresh(make_table: MakeTable) -> None:
    table, fresh = make_table(SPEC), make_table(SPEC)
    table.learn(keys_of(7, 8), gradients(2), event_time_s=9)
    assert table.erase(keys_of(7, 9, 7)) == 1
    assert table.contains(keys_of(7, 8)).tolist() == [False, True]
    assert table.erase(keys_of(8)) == 1
    for t in (table, fresh):
        t.learn(keys_of(8, 7), gradients(2), event_time_s=2)
    assert_equal_tables(table, fresh)


def check_imported_rows_learn_on_as_the_exported_ones(make_table: MakeTable) -> None:
    table, copy = make_table(SPEC), make_table(SPEC)
    table.learn(keys_of(7, 8), gradients(2), event_time_s=3)
    copy.learn(keys_of(8), gradients(1, 9.0), event_time_s=9)
    copy.import_rows(table.export_rows(keys_of(8, 7)))
    for t in (table, copy):
        t.learn(keys_of(7), gradients(1, -2.0), event_time_s=4)
    assert_equal_tables(table, copy)


def check_imported_rows_are_held_bit_for_bit(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    weights_ND = np.array([[0.0, -0.0, np.inf, 1e-45], [1.0] * 4, [2.0] * 4], dtype=np.float32)
    rows = TableRows(
        keys_N=keys_of(0, 2**64 - 1, 0),
        weights_ND=weights_ND[[1, 2, 0]],
        state_NS=np.arange(9, dtype=np.float32).reshape(3, 3),
        last_seen_s_N=np.array([1, _LARGEST, 3], dtype=np.uint32),
        count_N=np.array([_LARGEST, 0, 2], dtype=np.uint32),
    )
    table.import_rows(rows)
    held = all_rows(table)
    assert held.keys_N.tolist() == [0, 2**64 - 1]
    assert bits(held.weights_ND) == bits(weights_ND[[0, 2]])
    assert held.state_NS.tolist() == [[6.0, 7.0, 8.0], [3.0, 4.0, 5.0]]
    assert held.last_seen_s_N.tolist() == [3, _LARGEST]
    assert held.count_N.tolist() == [2, 0]


def check_exporting_a_missing_key_is_refused(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    table.learn(keys_of(7), gradients(1), event_time_s=3)
    with pytest.raises(KeyError, match="no row for key 0x0000000000000008"):
        table.export_rows(keys_of(7, 8))


def check_what_was_read_does_not_change_with_the_table(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    keys_N = keys_of(7)
    table.assign(keys_N, gradients(1))
    follower = table.follow()
    table.learn(keys_of(8), gradients(1), event_time_s=1)
    read_ND, exported, listed_N, drained = (
        table.lookup(keys_N),
        table.export_rows(keys_N),
        table.keys(),
        table.drain(follower),
    )
    keys_N[0] = 3
    table.erase(keys_of(7, 8))
    table.assign(keys_of(4, 5), gradients(2, 9.0))
    assert read_ND.tolist() == exported.weights_ND.tolist() == [[1.0] * 4]
    assert exported.keys_N.tolist() == [7]
    assert listed_N.tolist() == [7, 8]
    assert drained.touched_N.tolist() == [8]


def check_no_key_is_special(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    special_N = keys_of(0, 1, 2**32, 2**63, 2**64 - 2, 2**64 - 1)
    weights_ND = np.arange(24, dtype=np.float32).reshape(6, 4)
    assert not table.contains(special_N).any()
    table.assign(special_N, weights_ND)
    assert table.keys().tolist() == special_N.tolist()
    np.testing.assert_array_equal(table.lookup(special_N), weights_ND)
    assert table.erase(special_N[::2].copy()) == 3
    assert table.contains(special_N).tolist() == [False, True] * 3


def check_keys_with_equal_low_bits_never_share_a_row(make_table: MakeTable) -> None:
    @given(low=st.integers(0, 2**32 - 1), first=st.integers(0, 2**31), step=st.integers(1, 2**20))
    @settings(max_examples=20, deadline=None, database=None)
    def each_key_holds_what_it_was_given(low: int, first: int, step: int) -> None:
        table = make_table(SPEC)
        keys_N = keys_of(*(((first + i * step) << 32) | low for i in range(200)))
        weights_ND = np.arange(len(keys_N) * SPEC.dim, dtype=np.float32).reshape(-1, SPEC.dim)
        table.assign(keys_N, weights_ND)
        np.testing.assert_array_equal(table.lookup(keys_N), weights_ND)
        assert len(table) == len(keys_N)

    each_key_holds_what_it_was_given()


def check_growth_keeps_every_row(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    keys_N = np.arange(9000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    weights_ND = np.arange(9000 * SPEC.dim, dtype=np.float32).reshape(-1, SPEC.dim)
    for begin in range(0, 9000, 1000):
        table.assign(keys_N[begin : begin + 1000], weights_ND[begin : begin + 1000])
        np.testing.assert_array_equal(table.lookup(keys_N[: begin + 1000]), weights_ND[: begin + 1000])
    assert table.keys().tolist() == sorted(keys_N.tolist())


READING = (
    check_a_missing_key_reads_as_zeros_and_stays_missing,
    check_a_missing_key_reads_as_the_row_it_would_get,
    check_initial_weights_do_not_depend_on_order,
    check_a_bag_is_the_scaled_sum_of_its_rows_in_order,
    check_bags_without_a_scale_are_plain_sums,
    check_the_last_of_equal_keys_is_assigned,
    check_assigned_rows_keep_state_time_and_count,
    check_an_erased_key_starts_afresh,
    check_imported_rows_learn_on_as_the_exported_ones,
    check_imported_rows_are_held_bit_for_bit,
    check_exporting_a_missing_key_is_refused,
    check_what_was_read_does_not_change_with_the_table,
    check_no_key_is_special,
    check_keys_with_equal_low_bits_never_share_a_row,
    check_growth_keeps_every_row,
)
"""For any table."""
