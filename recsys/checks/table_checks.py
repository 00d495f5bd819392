"""What every EmbeddingTable promises, as checks that take a factory of tables.

    @pytest.mark.parametrize("check", list(table_checks()), ids=lambda check: check.__name__)
    def test_my_table_keeps_its_promises(check):
        check(MyTable)

Axes: N keys of one call, D weights of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.checks.table_programs import check_any_interleaving_equals_the_reference
from recsys.errors import ConfigError, GradientError, ShapeError
from recsys.table.spec import SGD, Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.table import EmbeddingTable, Floats, Keys, TableRows

MakeTable = Callable[[TableSpec], EmbeddingTable]
Check = Callable[[MakeTable], None]

_VECTOR = SliceSpec(
    name="vector", dim=3, optimizer=Adagrad(learning_rate=0.1), initializer=Uniform(low=-0.05, high=0.05)
)
_WIDE = SliceSpec(name="wide", dim=1, optimizer=SGD(learning_rate=1.0), initializer=Zeros())
_SPEC = TableSpec(name="checked", slices=(_WIDE, _VECTOR))
_READS_INITIAL = TableSpec(name="checked", slices=(_WIDE, _VECTOR), missing="initializer")


def table_checks() -> Iterator[Check]:
    """Every check, the quick ones first."""
    yield check_a_missing_key_reads_as_zeros_and_stays_missing
    yield check_a_missing_key_reads_as_the_row_it_would_get
    yield check_the_first_gradient_lands_on_the_initial_values
    yield check_a_key_given_twice_learns_once_from_the_sum
    yield check_a_gradient_that_is_not_finite_changes_nothing
    yield check_initial_weights_do_not_depend_on_order
    yield check_an_erased_key_starts_afresh
    yield check_touched_keys_are_drained_once
    yield check_a_late_event_does_not_age_a_row
    yield check_the_last_of_equal_keys_is_assigned
    yield check_imported_rows_learn_on_as_the_exported_ones
    yield check_exporting_a_missing_key_is_refused
    yield check_arrays_of_another_kind_are_refused
    yield check_event_times_beyond_32_bits_are_refused
    yield check_calls_without_keys_change_nothing
    yield check_clear_leaves_a_new_table
    yield check_erased_memory_is_used_again
    yield check_keys_with_equal_low_bits_never_share_a_row
    yield check_growth_keeps_every_row
    yield check_any_interleaving_equals_the_reference


def keys_of(*keys: int) -> Keys:
    """Keys as a table takes them, (N,)."""
    return np.array(keys, dtype=np.uint64)


def gradients(n: int, value: float = 1.0) -> Floats:
    """Equal gradients for the checks' own spec, (N, D)."""
    return np.full((n, _SPEC.dim), value, dtype=np.float32)


def check_a_missing_key_reads_as_zeros_and_stays_missing(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    table.learn(keys_of(1), gradients(1), event_time_s=1)
    assert not table.lookup(keys_of(7, 8)).any()
    assert table.contains(keys_of(7, 1, 8)).tolist() == [False, True, False]
    assert len(table) == 1


def check_a_missing_key_reads_as_the_row_it_would_get(make_table: MakeTable) -> None:
    table = make_table(_READS_INITIAL)
    before_ND = table.lookup(keys_of(7))
    assert before_ND[0, 1:].all()
    table.learn(keys_of(7), gradients(1, value=0.0), event_time_s=1)
    np.testing.assert_array_equal(table.lookup(keys_of(7)), before_ND)


def check_the_first_gradient_lands_on_the_initial_values(make_table: MakeTable) -> None:
    start_D = make_table(_READS_INITIAL).lookup(keys_of(7))[0]
    table = make_table(_SPEC)
    table.learn(keys_of(7), gradients(1), event_time_s=1)
    want_D = start_D - np.array([1.0] + [0.1 / np.sqrt(1.1)] * 3)
    np.testing.assert_allclose(table.lookup(keys_of(7))[0], want_D, atol=1e-7)


def check_a_key_given_twice_learns_once_from_the_sum(make_table: MakeTable) -> None:
    twice, once = make_table(_SPEC), make_table(_SPEC)
    grads_ND = np.concatenate([gradients(1, 0.5), gradients(1, 4.0), gradients(1, 0.25)])
    twice.learn(keys_of(7, 8, 7), grads_ND, event_time_s=1)
    once.learn(keys_of(7, 8), np.concatenate([gradients(1, 0.75), gradients(1, 4.0)]), event_time_s=1)
    _assert_equal_tables(twice, once)


def check_a_gradient_that_is_not_finite_changes_nothing(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    table.learn(keys_of(1), gradients(1), event_time_s=5)
    table.drain_touched()
    before = table.export_rows(keys_of(1))
    for first, second in [(np.nan, 0.0), (np.inf, -np.inf), (3e38, 3e38)]:
        grads_ND = np.concatenate([gradients(2), gradients(1, first), gradients(1, second)])
        with pytest.raises(GradientError, match="not finite"):
            table.learn(keys_of(1, 2, 3, 3), grads_ND, event_time_s=6)
    assert table.keys().tolist() == [1]
    assert not len(table.drain_touched())
    _assert_equal_rows(table.export_rows(keys_of(1)), before)


def check_initial_weights_do_not_depend_on_order(make_table: MakeTable) -> None:
    one, other = make_table(_SPEC), make_table(_SPEC)
    keys_N = np.arange(50, dtype=np.uint64)
    one.learn(keys_N, gradients(50, 0.0), event_time_s=1)
    for key in keys_N[::-1]:
        other.learn(keys_of(key), gradients(1, 0.0), event_time_s=1)
    _assert_equal_tables(one, other)
    assert len(np.unique(one.lookup(keys_N)[:, 1:])) > 140  # draws differ between keys and columns


def check_an_erased_key_starts_afresh(make_table: MakeTable) -> None:
    table, fresh = make_table(_SPEC), make_table(_SPEC)
    table.learn(keys_of(7, 8), gradients(2), event_time_s=9)
    assert table.erase(keys_of(7, 9, 7)) == 1
    assert table.contains(keys_of(7, 8)).tolist() == [False, True]
    assert table.erase(keys_of(8)) == 1
    for t in (table, fresh):
        t.learn(keys_of(8, 7), gradients(2), event_time_s=2)
    _assert_equal_tables(table, fresh)


def check_touched_keys_are_drained_once(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    table.learn(keys_of(5, 3, 5), gradients(3), event_time_s=1)
    table.assign(keys_of(2**64 - 1), gradients(1))
    table.import_rows(table.export_rows(keys_of(3)))
    assert table.drain_touched().tolist() == [3, 5, 2**64 - 1]
    assert table.drain_touched().tolist() == []
    table.lookup(keys_of(5))
    table.erase(keys_of(3, 4))
    assert table.drain_touched().tolist() == [3]
    table.learn(keys_of(3), gradients(1), event_time_s=1)
    table.erase(keys_of(3))
    table.learn(keys_of(9), gradients(1), event_time_s=1)  # on the row that 3 had
    assert table.drain_touched().tolist() == [3, 9]


def check_a_late_event_does_not_age_a_row(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    for event_time_s in (10, 2**32 - 1, 7):
        table.learn(keys_of(1), gradients(1), event_time_s=event_time_s)
    table.learn(keys_of(2), gradients(1), event_time_s=7)
    table.assign(keys_of(2, 3), gradients(2))
    assert table.export_rows(keys_of(1, 2, 3)).last_seen_s_N.tolist() == [2**32 - 1, 7, 0]


def check_the_last_of_equal_keys_is_assigned(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    table.assign(keys_of(7, 8, 7), np.concatenate([gradients(1, v) for v in (1.0, 2.0, 3.0)]))
    assert table.lookup(keys_of(7, 8))[:, 0].tolist() == [3.0, 2.0]
    np.testing.assert_array_equal(table.export_rows(keys_of(7)).state_NS, np.full((1, 3), 0.1, np.float32))


def check_imported_rows_learn_on_as_the_exported_ones(make_table: MakeTable) -> None:
    table, copy = make_table(_SPEC), make_table(_SPEC)
    table.learn(keys_of(7, 8), gradients(2), event_time_s=3)
    copy.learn(keys_of(8), gradients(1, 9.0), event_time_s=9)
    copy.import_rows(table.export_rows(keys_of(8, 7)))
    for t in (table, copy):
        t.learn(keys_of(7), gradients(1, -2.0), event_time_s=4)
    _assert_equal_tables(table, copy)


def check_exporting_a_missing_key_is_refused(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    table.learn(keys_of(7), gradients(1), event_time_s=3)
    with pytest.raises(KeyError, match="no row for key 0x0000000000000008"):
        table.export_rows(keys_of(7, 8))


def check_arrays_of_another_kind_are_refused(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    wrong_keys = [np.arange(2), np.arange(4, dtype=np.uint64)[::2], np.zeros((1, 2), np.uint64)]
    wrong_grads = [gradients(3), gradients(2).astype(np.float64), np.asfortranarray(gradients(2))]
    for keys_N in wrong_keys:
        for call in (table.lookup, table.contains, table.erase, table.export_rows):
            with pytest.raises(ShapeError, match="keys must be"):
                call(keys_N)  # type: ignore[arg-type]
    for grads_ND in wrong_grads:
        with pytest.raises(ShapeError, match="grads_ND must be"):
            table.learn(keys_of(1, 2), grads_ND, event_time_s=1)  # type: ignore[arg-type]
        with pytest.raises(ShapeError, match="weights_ND must be"):
            table.assign(keys_of(1, 2), grads_ND)  # type: ignore[arg-type]
    assert len(table) == 0


def check_event_times_beyond_32_bits_are_refused(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    for event_time_s in (-1, 2**32):
        with pytest.raises(ConfigError, match="event_time_s must be"):
            table.learn(keys_of(1), gradients(1), event_time_s=event_time_s)
    assert len(table) == 0


def check_calls_without_keys_change_nothing(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    table.learn(keys_of(), gradients(0), event_time_s=1)
    table.assign(keys_of(), gradients(0))
    table.import_rows(table.export_rows(keys_of()))
    assert table.erase(keys_of()) == 0
    assert table.lookup(keys_of()).shape == (0, _SPEC.dim)
    assert len(table) == len(table.keys()) == len(table.drain_touched()) == 0


def check_clear_leaves_a_new_table(make_table: MakeTable) -> None:
    table, fresh = make_table(_SPEC), make_table(_SPEC)
    table.learn(np.arange(100, dtype=np.uint64), gradients(100), event_time_s=1)
    table.clear()
    _assert_equal_tables(table, fresh)
    assert table.memory() == fresh.memory()
    table.learn(keys_of(3), gradients(1), event_time_s=1)
    assert table.drain_touched().tolist() == [3]


def check_erased_memory_is_used_again(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    keys_N = np.arange(6000, dtype=np.uint64)
    table.assign(keys_N, gradients(6000))
    full = table.memory()
    assert 0 < full.bytes_live <= full.bytes_reserved
    table.erase(keys_N[:5400])
    assert table.memory().bytes_live == full.bytes_live // 10
    table.assign(keys_N[:5400] + np.uint64(1 << 40), gradients(5400))
    assert table.memory().bytes_live == full.bytes_live
    assert table.memory().bytes_reserved <= full.bytes_reserved


def check_keys_with_equal_low_bits_never_share_a_row(make_table: MakeTable) -> None:
    @given(low=st.integers(0, 2**32 - 1), first=st.integers(0, 2**31), step=st.integers(1, 2**20))
    @settings(max_examples=30, deadline=None, database=None)
    def each_key_holds_what_it_was_given(low: int, first: int, step: int) -> None:
        table = make_table(_SPEC)
        keys_N = keys_of(*(((first + i * step) << 32) | low for i in range(200)))
        weights_ND = np.arange(len(keys_N) * _SPEC.dim, dtype=np.float32).reshape(-1, _SPEC.dim)
        table.assign(keys_N, weights_ND)
        np.testing.assert_array_equal(table.lookup(keys_N), weights_ND)
        assert len(table) == len(keys_N)

    each_key_holds_what_it_was_given()


def check_growth_keeps_every_row(make_table: MakeTable) -> None:
    table = make_table(_SPEC)
    keys_N = np.arange(9000, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    weights_ND = np.arange(9000 * _SPEC.dim, dtype=np.float32).reshape(-1, _SPEC.dim)
    for begin in range(0, 9000, 1000):
        table.assign(keys_N[begin : begin + 1000], weights_ND[begin : begin + 1000])
        np.testing.assert_array_equal(table.lookup(keys_N[: begin + 1000]), weights_ND[: begin + 1000])
    assert table.keys().tolist() == sorted(keys_N.tolist())


def _assert_equal_tables(got: EmbeddingTable, want: EmbeddingTable) -> None:
    np.testing.assert_array_equal(got.keys(), want.keys())
    _assert_equal_rows(got.export_rows(got.keys()), want.export_rows(want.keys()))


def _assert_equal_rows(got: TableRows, want: TableRows) -> None:
    np.testing.assert_array_equal(got.weights_ND, want.weights_ND)
    np.testing.assert_array_equal(got.state_NS, want.state_NS)
    np.testing.assert_array_equal(got.last_seen_s_N, want.last_seen_s_N)
