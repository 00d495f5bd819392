"""Shards by key hash behave as one table: the conformance suite, and what only shards can get wrong.

Axes: N keys of one call, B bags, D weights of a row.
"""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.checks.table_checks import Check, table_checks
from recsys.errors import ConfigError, GradientError, SnapshotError
from recsys.hashing import mix64
from recsys.table.admission import Occurrence
from recsys.table.initializers import Uniform
from recsys.table.native import NativeTable
from recsys.table.optimizers import Adagrad
from recsys.table.placement import shard_of, shares
from recsys.table.reference import ReferenceTable
from recsys.table.retention import Capacity, Expiry
from recsys.table.rows import pooled
from recsys.table.sharded import ShardedTable
from recsys.table.spec import SliceSpec, TableSpec
from recsys.table.table import Bags, EmbeddingTable, Floats, Keys

SLICE = SliceSpec(
    name="vector", dim=2, optimizer=Adagrad(learning_rate=0.1), initializer=Uniform(low=-1.0, high=1.0)
)
SPEC = TableSpec(name="sharded", slices=(SLICE,))
SOME_KEYS = np.arange(1, 41, dtype=np.uint64)

MakeTable = Callable[[TableSpec], EmbeddingTable]


def sharded(spec: TableSpec, n_shards: int = 3) -> ShardedTable:
    return ShardedTable(spec, n_shards, ReferenceTable)


def ones(n: int, value: float = 1.0) -> Floats:
    return np.full((n, 2), value, dtype=np.float32)


def key_in_shard(index: int, n_shards: int = 3) -> Keys:
    return SOME_KEYS[shard_of(SOME_KEYS, n_shards) == index][:1]


# Each shard numbers and evicts its own rows, so nothing that depends on that is asked.
@pytest.mark.parametrize(("make_shard", "n_shards"), [(NativeTable, 3), (ReferenceTable, 2)])
@pytest.mark.parametrize("check", list(table_checks(exact_rows=False)), ids=lambda check: check.__name__)
def test_shards_keep_the_promises_of_a_table(make_shard: MakeTable, n_shards: int, check: Check) -> None:
    check(partial(ShardedTable, n_shards=n_shards, make_table=make_shard))


@given(
    lengths=st.lists(st.one_of(st.integers(0, 5), st.integers(60, 70)), max_size=6),
    seed=st.integers(0, 2**32 - 1),
    dim=st.integers(1, 3),
    is_scaled=st.booleans(),
)
def test_rows_are_pooled_in_order_of_occurrence(
    lengths: list[int], seed: int, dim: int, is_scaled: bool
) -> None:
    random = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths])
    size_N1 = 10.0 ** random.integers(-6, 6, (offsets[-1], 1))
    rows_ND = (size_N1 * random.normal(size=(offsets[-1], dim))).astype(np.float32)
    scale_B = random.normal(size=len(lengths)).astype(np.float32) if is_scaled else None
    want_BD = np.zeros((len(lengths), dim), dtype=np.float32)
    for bag, (begin, end) in enumerate(itertools.pairwise(offsets)):
        for i in range(begin, end):
            want_BD[bag] += rows_ND[i]
    if scale_B is not None:
        want_BD = want_BD * scale_B[:, None]
    assert pooled(rows_ND, offsets, scale_B).tobytes() == want_BD.tobytes()


@given(key=st.integers(0, 2**64 - 1), n_shards=st.integers(1, 1 << 16))
def test_a_key_goes_to_the_shard_that_the_second_hash_names(key: int, n_shards: int) -> None:
    want = ((mix64(mix64(key)) >> 32) * n_shards) >> 32
    assert shard_of(np.array([key], dtype=np.uint64), n_shards).tolist() == [want]


def test_keys_of_every_shard_fill_all_buckets_evenly() -> None:
    keys_N = np.arange(80_000, dtype=np.uint64) << np.uint64(20)
    shard_N = shard_of(keys_N, 4)
    bucket_N = np.array([mix64(key) for key in keys_N.tolist()], dtype=np.uint64)
    for part_N in (bucket_N >> np.uint64(62), bucket_N & np.uint64(3)):
        counts = np.bincount(shard_N * 4 + part_N.astype(int), minlength=16)
        np.testing.assert_allclose(counts, 5_000, rtol=0.06)


@given(
    rows=st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any),
    budgets=st.lists(st.integers(1, 7), min_size=1, max_size=20),
)
def test_tables_take_turns_at_a_budget_as_rows_in_one_line_would(rows: list[int], budgets: list[int]) -> None:
    line = [table for table, n_rows in enumerate(rows) for _ in range(n_rows)]
    cursor, place = 0, 0
    for budget in budgets:
        share, cursor = shares(cursor, budget, rows)
        if budget >= len(line):
            assert share == [budget] * len(rows)
            place = 0
            continue
        taken = [line[(place + i) % len(line)] for i in range(budget)]
        assert share == [taken.count(table) for table in range(len(rows))]
        place = (place + budget) % len(line)


@pytest.mark.parametrize(("first", "second"), [(np.nan, 0.0), (3e38, 3e38), (np.inf, -np.inf)])
def test_a_refused_gradient_of_one_shard_keeps_all_shards_from_learning(first: float, second: float) -> None:
    for bad in range(3):
        table = sharded(SPEC)
        keys_N = np.concatenate([key_in_shard(i) for i in (0, 1, 2, bad)])
        grads_ND = ones(4)
        grads_ND[bad, 0], grads_ND[3, 0] = first, second
        whole = Bags(offsets=np.arange(5), scale_B=np.ones(4, dtype=np.float32))
        with pytest.raises(GradientError, match=f"{int(keys_N[bad]):#018x} is not finite"):
            table.learn(keys_N, grads_ND, event_time_s=5)
        with pytest.raises(GradientError, match=f"{int(keys_N[bad]):#018x} is not finite"):
            table.learn_bags(keys_N, whole, grads_ND, event_time_s=5)
        assert (len(table), table.steps, table.clock_s) == (0, 0, 0)


def test_gradients_that_only_overflow_together_are_refused() -> None:
    table = sharded(SPEC)
    keys_N = np.append(np.repeat(key_in_shard(2), 40), key_in_shard(0))
    with pytest.raises(GradientError, match="is not finite"):
        table.learn(keys_N, ones(41, 1e37), event_time_s=5)
    assert (len(table), table.steps) == (0, 0)


def test_large_gradients_whose_sums_stay_finite_are_learned_from() -> None:
    table, single = sharded(SPEC), ReferenceTable(SPEC)
    keys_N = np.array([7, 7, 8], dtype=np.uint64)
    grads_ND = np.array([[3e38, 1], [-3e38, 1], [3e38, 1]], dtype=np.float32)
    for t in (table, single):
        t.learn(keys_N, grads_ND, event_time_s=5)
    np.testing.assert_array_equal(table.lookup(keys_N), single.lookup(keys_N))


def test_shards_without_a_key_of_the_batch_count_its_step_and_time() -> None:
    table = sharded(SPEC)
    table.learn(key_in_shard(0), ones(1), event_time_s=5)
    table.learn_bags(key_in_shard(1), Bags(offsets=np.array([0, 1])), ones(1), event_time_s=9)
    assert [(shard.steps, shard.clock_s) for shard in table.shards] == [(2, 9)] * 3


def test_row_numbers_tell_rows_of_different_shards_apart() -> None:
    table = sharded(SPEC)
    admitted_N = table.admit(SOME_KEYS, event_time_s=7)
    assert sorted(set(admitted_N.tolist())) == sorted(admitted_N.tolist())
    assert admitted_N.min() >= 0
    np.testing.assert_array_equal(table.row_numbers(SOME_KEYS), admitted_N)
    assert table.row_numbers(np.array([99], dtype=np.uint64)).tolist() == [-1]
    assert [shard.clock_s for shard in table.shards] == [7] * 3


def test_small_sweeps_reach_the_expired_rows_of_every_shard() -> None:
    table = sharded(TableSpec(name="sharded", slices=(SLICE,), expiry=Expiry(max_idle_s=10)))
    table.learn(SOME_KEYS, ones(40), event_time_s=1)
    table.learn(SOME_KEYS[:1], ones(1), event_time_s=11)
    gone = [table.sweep(3) for _ in range(30)]
    assert max(gone) <= 3
    assert table.keys().tolist() == [1]


def test_the_capacity_is_divided_among_the_shards() -> None:
    table = sharded(TableSpec(name="sharded", slices=(SLICE,), capacity=Capacity(max_rows=11)))
    table.learn(SOME_KEYS, ones(40), event_time_s=1)
    assert [len(shard) for shard in table.shards] == [3, 3, 3]
    assert table.spec.capacity == Capacity(max_rows=11)


@pytest.mark.parametrize("n_shards", [0, 65_537, True, 2.0])
def test_a_number_of_shards_that_cannot_be_is_refused(n_shards: int) -> None:
    with pytest.raises(ConfigError, match="n_shards must be in"):
        ShardedTable(SPEC, n_shards, ReferenceTable)


def test_a_capacity_with_no_row_for_some_shard_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_rows 2 leaves nothing for some of 3 shards"):
        sharded(TableSpec(name="sharded", slices=(SLICE,), capacity=Capacity(max_rows=2)))


@pytest.mark.parametrize("n_shards", [1, 2, 3])
def test_filters_go_on_in_any_number_of_shards(n_shards: int) -> None:
    spec = TableSpec(name="sharded", slices=(SLICE,), admission=Occurrence(threshold=3, width=1 << 12))
    table, restored = sharded(spec), sharded(spec, n_shards)
    for _ in range(2):
        table.learn(SOME_KEYS, ones(40), event_time_s=7)
    restored.restore_ledger(table.ledger())
    assert (restored.steps, restored.clock_s) == (2, 7)
    assert restored.counters() == table.counters()
    restored.learn(np.append(SOME_KEYS, [99, 99]).astype(np.uint64), ones(42), event_time_s=8)
    assert restored.keys().tolist() == SOME_KEYS.tolist()


def test_the_ledger_of_shards_restores_one_table_and_back() -> None:
    spec = TableSpec(name="sharded", slices=(SLICE,), admission=Occurrence(threshold=2, width=1 << 12))
    table, single, again = sharded(spec), ReferenceTable(spec), sharded(spec)
    table.learn(SOME_KEYS, ones(40), event_time_s=7)
    single.restore_ledger(table.ledger())
    again.restore_ledger(single.ledger())
    for t in (single, again):
        t.learn(SOME_KEYS, ones(40), event_time_s=8)
        assert t.keys().tolist() == SOME_KEYS.tolist()
    assert again.counters() == single.counters()


def test_a_ledger_of_another_admission_rule_changes_no_shard() -> None:
    other = TableSpec(name="sharded", slices=(SLICE,), admission=Occurrence(threshold=2, width=1 << 12))
    table = sharded(SPEC)
    with pytest.raises(SnapshotError, match="ledger admission_cells"):
        table.restore_ledger(sharded(other).ledger())
    assert table.steps == 0
