"""What every table promises about learning: optimizers, sums of gradients, rates, clips and bad gradients.

Axes: N keys of one call, B bags, D weights of a row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.checks import table_settings
from recsys.checks.table_specimens import (
    READS_INITIAL,
    SPEC,
    VECTOR,
    WIDE,
    MakeTable,
    all_rows,
    assert_equal_rows,
    assert_equal_tables,
    bags_of,
    gradients,
    keys_of,
    row_bits,
)
from recsys.errors import GradientError
from recsys.table import (
    SGD,
    ClipByNorm,
    ClipByValue,
    Optimizer,
    TableSpec,
    WarmUp,
)
from recsys.table.reference import ReferenceTable

_LARGEST = 2**32 - 1
_CLIPPED = replace(
    SPEC,
    slices=(replace(WIDE, clip=ClipByValue(limit=2.0)), replace(VECTOR, clip=ClipByNorm(limit=1.0))),
)


def check_the_first_gradient_lands_on_the_initial_values(make_table: MakeTable) -> None:
    start_D = make_table(READS_INITIAL).lookup(keys_of(7))[0]
    table = make_table(SPEC)
    table.learn(keys_of(7), gradients(1), event_time_s=1)
    want_D = start_D - np.array([1.0] + [0.1 / np.sqrt(1.1)] * 3)
    np.testing.assert_allclose(table.lookup(keys_of(7))[0], want_D, atol=1e-7)


def check_a_key_given_twice_learns_once_from_the_sum(make_table: MakeTable) -> None:
    twice, once = make_table(SPEC), make_table(SPEC)
    grads_ND = np.concatenate([gradients(1, 0.5), gradients(1, 4.0), gradients(1, 0.25)])
    twice.learn(keys_of(7, 8, 7), grads_ND, event_time_s=1)
    once.learn(keys_of(7, 8), np.concatenate([gradients(1, 0.75), gradients(1, 4.0)]), event_time_s=1)
    np.testing.assert_array_equal(twice.lookup(keys_of(7, 8)), once.lookup(keys_of(7, 8)))
    assert all_rows(twice).count_N.tolist() == [2, 1]
    assert all_rows(once).count_N.tolist() == [1, 1]


def check_a_bag_s_scaled_gradient_goes_to_each_of_its_keys(make_table: MakeTable) -> None:
    bagged, plain = make_table(SPEC), make_table(SPEC)
    grads_BD = np.concatenate([gradients(1, 3.0), gradients(1, 7.0), gradients(1, 0.3)])
    bagged.learn_bags(keys_of(7, 8, 7), bags_of(2, 0, 1, scale=[0.1, 9.0, 3.0]), grads_BD, event_time_s=1)
    scaled_BD = grads_BD * np.array([[0.1], [9.0], [3.0]], dtype=np.float32)
    plain.learn(keys_of(7, 8, 7), scaled_BD[[0, 0, 2]], event_time_s=1)
    assert_equal_tables(bagged, plain)
    assert bagged.steps == 1


def check_each_optimizer_gives_the_reference_s_bits(make_table: MakeTable) -> None:
    for optimizer in table_settings.OPTIMIZERS:
        _check_bits_of_optimizer(make_table, optimizer)


def _check_bits_of_optimizer(make_table: MakeTable, optimizer: st.SearchStrategy[Optimizer]) -> None:
    two = st.lists(table_settings.slices(optimizer, is_clipped=False), min_size=2, max_size=2)

    @given(
        spec=two.map(lambda parts: TableSpec(name="two", slices=table_settings.named_apart(parts))),
        seed=st.integers(0, 999),
        size=st.sampled_from([1e-20, 0.1, 1.0, 1e4, 1e25]),
    )
    @settings(max_examples=8, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    def equal_over_steps(spec: TableSpec, seed: int, size: float) -> None:
        table, twin = make_table(spec), ReferenceTable(spec)
        random = np.random.default_rng(seed)
        for step in range(6):
            grads_ND = (size * random.normal(size=(4, spec.dim))).astype(np.float32)
            for t in (table, twin):
                t.learn(keys_of(1, 2, 3, 1), grads_ND, event_time_s=step)
            assert row_bits(all_rows(table)) == row_bits(all_rows(twin))

    equal_over_steps()


def check_a_scheduled_rate_goes_by_learning_calls(make_table: MakeTable) -> None:
    rate = WarmUp(peak=1.0, steps=4)
    table = make_table(TableSpec(name="warming", slices=(replace(WIDE, optimizer=SGD(learning_rate=rate)),)))
    one_11 = np.ones((1, 1), dtype=np.float32)
    table.learn(keys_of(1), one_11, event_time_s=1)
    table.learn_bags(keys_of(1), bags_of(1), one_11, event_time_s=1)
    table.learn(keys_of(), np.empty((0, 1), dtype=np.float32), event_time_s=1)
    table.assign(keys_of(5), one_11)
    table.learn(keys_of(1), one_11, event_time_s=1)
    assert table.steps == 4
    assert table.lookup(keys_of(1)).tolist() == [[-(0.25 + 0.5 + 1.0)]]


def check_a_clip_bounds_the_sum_of_each_slice(make_table: MakeTable) -> None:
    clipped, plain = make_table(_CLIPPED), make_table(SPEC)
    clipped.learn(keys_of(7, 7), np.array([[9, 3, 0, 4], [9, 0, 0, 0]], dtype=np.float32), event_time_s=1)
    plain.learn(keys_of(7), np.array([[2.0, 0.6, 0.0, 0.8]], dtype=np.float32), event_time_s=1)
    np.testing.assert_allclose(clipped.lookup(keys_of(7)), plain.lookup(keys_of(7)), rtol=1e-5)


def check_counts_saturate(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    table.learn(keys_of(7), gradients(1), event_time_s=1)
    row = table.export_rows(keys_of(7))
    table.import_rows(replace(row, count_N=np.array([_LARGEST - 2], dtype=np.uint32)))
    for want in (_LARGEST - 1, _LARGEST, _LARGEST):
        table.learn(keys_of(7), gradients(1), event_time_s=1)
        assert table.export_rows(keys_of(7)).count_N.tolist() == [want]
    table.learn(keys_of(*[7] * 5), gradients(5), event_time_s=1)
    assert table.export_rows(keys_of(7)).count_N.tolist() == [_LARGEST]


def check_a_late_event_does_not_age_a_row(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    for event_time_s in (_LARGEST - 9, _LARGEST, 7):
        table.learn(keys_of(1), gradients(1), event_time_s=event_time_s)
    table.learn(keys_of(2), gradients(1), event_time_s=7)
    table.assign(keys_of(2, 3), gradients(2))
    assert table.export_rows(keys_of(1, 2, 3)).last_seen_s_N.tolist() == [_LARGEST, 7, 0]
    assert table.clock_s == _LARGEST


def check_a_gradient_that_is_not_finite_changes_nothing(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    table.learn(keys_of(1), gradients(1), event_time_s=5)
    follower = table.follow()
    before, counters = table.export_rows(keys_of(1)), table.counters()
    for first, second in [(np.nan, 0.0), (np.inf, -np.inf), (3e38, 3e38)]:
        grads_ND = np.concatenate([gradients(2), gradients(1, first), gradients(1, second)])
        with pytest.raises(GradientError, match="not finite"):
            table.learn(keys_of(1, 2, 3, 3), grads_ND, event_time_s=6)
        with pytest.raises(GradientError, match="not finite"):
            table.learn_bags(keys_of(1, 2, 3, 3), bags_of(1, 1, 1, 1), grads_ND, event_time_s=6)
    assert table.keys().tolist() == [1]
    assert not len(table.drain(follower).touched_N)
    assert (table.steps, table.clock_s, table.counters()) == (1, 5, counters)
    assert_equal_rows(table.export_rows(keys_of(1)), before)


def check_a_sum_that_only_rounding_makes_infinite_is_refused(make_table: MakeTable) -> None:
    # 10,000 of these are a finite number; added one by one, each sum rounded, they are not.
    grads_ND = np.full((10_000, SPEC.dim), np.uint32(0x78D1B714).view(np.float32))
    assert np.isfinite(grads_ND[0] * np.float32(10_000)).all()
    table = make_table(SPEC)
    with pytest.raises(GradientError, match="not finite"):
        table.learn(np.zeros(10_000, dtype=np.uint64), grads_ND, event_time_s=1)


def check_gradients_of_empty_bags_do_not_matter(make_table: MakeTable) -> None:
    table = make_table(SPEC)
    grads_BD = np.concatenate([gradients(1, np.nan), gradients(1), gradients(1, np.inf)])
    table.learn_bags(keys_of(1), bags_of(0, 1, 0), grads_BD, event_time_s=1)
    assert np.isfinite(table.lookup(keys_of(1))).all()
    assert table.counters().dropped_gradients == 0


def check_dropped_gradients_leave_their_keys_alone(make_table: MakeTable) -> None:
    table, want = make_table(replace(SPEC, nonfinite="drop")), make_table(SPEC)
    for t in (table, want):
        t.learn(keys_of(1), gradients(1), event_time_s=5)
    follower = table.follow()
    grads_ND = np.concatenate([gradients(1, np.nan), gradients(2), gradients(2, 3e38)])
    table.learn(keys_of(1, 2, 1, 3, 3), grads_ND, event_time_s=6)
    want.learn(keys_of(2), gradients(1), event_time_s=6)
    assert_equal_tables(table, want)
    assert table.counters().dropped_gradients == 2
    assert table.drain(follower).touched_N.tolist() == [2]
    assert table.steps == 2


def check_nonfinite_gradients_are_clipped_to_numbers(make_table: MakeTable) -> None:
    table = make_table(replace(_CLIPPED, nonfinite="clip"))
    want = make_table(_CLIPPED)
    largest = np.finfo(np.float32).max
    bad_ND = np.array([[np.nan, np.inf, 0, 0], [-np.inf, 0, -3e38, 0], [0, 0, -3e38, 0]], dtype=np.float32)
    sums_ND = np.array([[0, largest, 0, 0], [-largest, 0, -largest, 0]], dtype=np.float32)
    table.learn(keys_of(1, 2, 2), bad_ND, event_time_s=6)
    want.learn(keys_of(1, 2), sums_ND, event_time_s=6)
    np.testing.assert_array_equal(table.lookup(keys_of(1, 2)), want.lookup(keys_of(1, 2)))
    assert np.isfinite(table.lookup(keys_of(1, 2))).all()
    assert table.counters().dropped_gradients == 2


LEARNING = (
    check_the_first_gradient_lands_on_the_initial_values,
    check_a_key_given_twice_learns_once_from_the_sum,
    check_a_bag_s_scaled_gradient_goes_to_each_of_its_keys,
    check_each_optimizer_gives_the_reference_s_bits,
    check_a_scheduled_rate_goes_by_learning_calls,
    check_a_clip_bounds_the_sum_of_each_slice,
    check_counts_saturate,
    check_a_late_event_does_not_age_a_row,
    check_a_gradient_that_is_not_finite_changes_nothing,
    check_a_sum_that_only_rounding_makes_infinite_is_refused,
    check_gradients_of_empty_bags_do_not_matter,
    check_dropped_gradients_leave_their_keys_alone,
    check_nonfinite_gradients_are_clipped_to_numbers,
)
"""For any table."""
