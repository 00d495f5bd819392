"""Rows on disk behave as rows in memory: the conformance suite, and what only two tiers can get wrong.

Axes: N keys of one call, D weights of a row.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import Options, Rdict

from recsys.checks.table_checks import Check, table_checks
from recsys.errors import ConfigError, GradientError, SnapshotError
from recsys.table.cold_store import ColdStore
from recsys.table.initializers import Uniform
from recsys.table.native import NativeTable
from recsys.table.optimizers import Adagrad
from recsys.table.reference import ReferenceTable
from recsys.table.retention import Capacity, Expiry
from recsys.table.spec import SliceSpec, TableSpec
from recsys.table.table import EmbeddingTable, Floats, Keys, TableRows
from recsys.table.tiered import TieredTable

SLICE = SliceSpec(
    name="vector", dim=2, optimizer=Adagrad(learning_rate=0.1), initializer=Uniform(low=-1.0, high=1.0)
)
SPEC = TableSpec(name="tiered", slices=(SLICE,))

MakeHot = Callable[[TableSpec], EmbeddingTable]
MakeTiered = Callable[..., TieredTable]


@pytest.fixture
def make_tiered(tmp_path: Path) -> Iterator[MakeTiered]:
    """Makes tables with a store of their own and room for two rows in memory."""
    numbers, tables = itertools.count(), []

    def make(spec: TableSpec = SPEC, hot: MakeHot = ReferenceTable, max_hot_rows: int = 2) -> TieredTable:
        cold = ColdStore(tmp_path / str(next(numbers)), spec, cache_bytes=1 << 20)
        tables.append(TieredTable(hot(spec), cold, max_hot_rows=max_hot_rows))
        return tables[-1]

    yield make
    for table in tables:
        table.cold.close()


def keys_of(*keys: int) -> Keys:
    return np.array(keys, dtype=np.uint64)


def ones(n: int, value: float = 1.0) -> Floats:
    return np.full((n, 2), value, dtype=np.float32)


def learn_in_turn(table: EmbeddingTable, *keys: int) -> None:
    """The first key is the one that then has been idle the longest."""
    for event_time_s, key in enumerate(keys, start=1):
        table.learn(keys_of(key), ones(1), event_time_s=event_time_s)


def scanned(table: EmbeddingTable, max_rows: int = 2) -> list[TableRows]:
    parts, cursor = [], 0
    while not parts or cursor:
        rows, cursor = table.scan(cursor, max_rows)
        parts.append(rows)
    return parts


def assert_equal_tables(got: EmbeddingTable, want: EmbeddingTable) -> None:
    np.testing.assert_array_equal(got.keys(), want.keys())
    got_rows, want_rows = got.export_rows(want.keys()), want.export_rows(want.keys())
    for name in ("weights_ND", "state_NS", "last_seen_s_N", "count_N"):
        np.testing.assert_array_equal(getattr(got_rows, name), getattr(want_rows, name), err_msg=name)


# Rows that move between the tiers have no numbers, so nothing that depends on those is asked.
@pytest.mark.parametrize("check", list(table_checks(exact_rows=False)), ids=lambda check: check.__name__)
def test_tiers_keep_the_promises_of_a_table(make_tiered: MakeTiered, check: Check) -> None:
    check(lambda spec: make_tiered(spec, NativeTable))


# Rows that move between two calls of scan must still be seen, and seen once.
@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("learn"), st.lists(st.integers(0, 11), min_size=1, max_size=3)),
            st.tuples(st.just("demote"), st.integers(1, 4)),
        ),
        max_size=12,
    ),
    max_rows=st.integers(1, 5),
)
@settings(deadline=None, max_examples=30)
def test_a_scan_sees_every_row_once_though_rows_move_meanwhile(
    moves: list[tuple[str, list[int] | int]], max_rows: int
) -> None:
    with TemporaryDirectory() as folder:
        table = TieredTable(ReferenceTable(SPEC), ColdStore(Path(folder), SPEC), max_hot_rows=4)
        learn_in_turn(table, *range(10))
        rows, cursor = table.scan(0, max_rows)
        seen = rows.keys_N.tolist()
        for move, argument in [*moves, *[("demote", 1)] * 10]:
            if not cursor:
                break
            if move == "learn":
                table.learn(keys_of(*argument), ones(len(argument)), event_time_s=20)
            else:
                table.demote(argument)
            rows, cursor = table.scan(cursor, max_rows)
            seen += rows.keys_N.tolist()
        table.cold.close()
    assert len(seen) == len(set(seen))
    assert set(seen) >= set(range(10))


def test_a_scan_gives_all_rows_by_ascending_key_in_parts_of_the_size_asked_for(
    make_tiered: MakeTiered,
) -> None:
    table = make_tiered()
    learn_in_turn(table, 9, 2**64 - 1, 0, 7, 3)
    parts = scanned(table)
    assert [len(part.keys_N) for part in parts] == [2, 2, 1]
    assert np.concatenate([part.keys_N for part in parts]).tolist() == [0, 3, 7, 9, 2**64 - 1]


def test_rows_that_idled_the_longest_go_cold_first(make_tiered: MakeTiered) -> None:
    table = make_tiered(max_hot_rows=5)
    learn_in_turn(table, 5, 4, 3, 2, 1)
    table.learn(keys_of(4), ones(1), event_time_s=9)
    assert table.demote(2) == 2
    assert table.cold.keys().tolist() == [3, 5]


def test_no_more_rows_than_allowed_stay_in_memory(make_tiered: MakeTiered) -> None:
    hot = ReferenceTable(SPEC)
    table = make_tiered(hot=lambda spec: hot)
    table.learn(np.arange(9, dtype=np.uint64), ones(9), event_time_s=1)
    assert (len(hot), len(table.cold), len(table)) == (2, 7, 9)
    table.assign(np.arange(9, dtype=np.uint64), ones(9))
    assert (len(hot), len(table.cold), len(table)) == (2, 7, 9)
    table.import_rows(table.export_rows(table.keys()))
    assert (len(hot), len(table.cold), len(table)) == (2, 7, 9)


def test_reading_a_cold_row_leaves_it_where_it_is(make_tiered: MakeTiered) -> None:
    table = make_tiered()
    learn_in_turn(table, 1, 2, 3)
    assert table.cold.keys().tolist() == [1]
    for read in (table.lookup, table.contains, table.export_rows):
        read(keys_of(1))
    assert table.cold.keys().tolist() == [1]


def test_going_cold_is_no_change_and_hides_none(make_tiered: MakeTiered) -> None:
    table = make_tiered(max_hot_rows=9)
    learn_in_turn(table, 1, 2, 3)
    early = table.follow()
    table.learn(keys_of(2), ones(1), event_time_s=4)
    late = table.follow()
    table.demote(3)
    assert table.memory().bytes_changes > 0
    assert (table.drain(early).touched_N.tolist(), table.drain(early).touched_N.tolist()) == ([2], [])
    changes = table.drain(late)
    assert not len(changes.touched_N)
    assert not len(changes.removed_N)


def test_erased_and_expired_cold_rows_are_reported_as_removed(make_tiered: MakeTiered) -> None:
    table = make_tiered(TableSpec(name="tiered", slices=(SLICE,), expiry=Expiry(max_idle_s=10)))
    learn_in_turn(table, 1, 2, 3, 4)
    follower = table.follow()
    assert table.erase(keys_of(1, 1, 4, 8)) == 2
    table.learn(keys_of(5), ones(1), event_time_s=12)
    assert table.sweep(100) == 1
    assert table.drain(follower).removed_N.tolist() == [1, 2, 4]
    assert table.keys().tolist() == [3, 5]
    assert table.counters().expired == 1


def test_each_feature_expires_by_its_own_limit_in_both_tiers(make_tiered: MakeTiered) -> None:
    expiry = Expiry(max_idle_s=10, by_feature={7: 100})
    table = make_tiered(TableSpec(name="tiered", slices=(SLICE,), expiry=expiry))
    learn_in_turn(table, 1, 7 << 52, 2, (7 << 52) + 1)
    table.learn(keys_of(3), ones(1), event_time_s=50)
    gone = [table.sweep(1) for _ in range(10)]
    assert max(gone) == 1
    assert table.keys().tolist() == [3, 7 << 52, (7 << 52) + 1]


def test_bringing_rows_back_admits_nothing(make_tiered: MakeTiered) -> None:
    table = make_tiered()
    learn_in_turn(table, 1, 2, 3, 1, 2, 3)
    assert table.counters().admitted == 3
    assert table.ledger()["counters"][0] == 3


def test_a_refused_gradient_changes_no_row_of_either_tier(make_tiered: MakeTiered) -> None:
    table, single = make_tiered(), ReferenceTable(SPEC)
    for t in (table, single):
        learn_in_turn(t, 1, 2, 3, 4)
    with pytest.raises(GradientError):
        table.learn(keys_of(1, 2, 3, 4), ones(4, np.nan), event_time_s=9)
    assert_equal_tables(table, single)
    assert len(table.cold) == 2


def test_a_reopened_store_has_the_rows_as_they_went_cold(tmp_path: Path) -> None:
    first = TieredTable(ReferenceTable(SPEC), ColdStore(tmp_path, SPEC), max_hot_rows=1)
    learn_in_turn(first, 1, 0, 2**64 - 1)
    kept = ReferenceTable(SPEC)
    kept.import_rows(first.export_rows(keys_of(1, 0)))
    first.cold.close()
    second = TieredTable(ReferenceTable(SPEC), ColdStore(tmp_path, SPEC), max_hot_rows=1)
    assert len(second) == 2
    assert_equal_tables(second, kept)
    second.cold.close()


KILLED_AFTER_DEMOTING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from recsys.table.cold_store import ColdStore
from recsys.table.reference import ReferenceTable
from recsys.table.spec import TableSpec
from recsys.table.tiered import TieredTable
spec = TableSpec.from_json(sys.argv[2])
table = TieredTable(ReferenceTable(spec), ColdStore(Path(sys.argv[1]), spec), max_hot_rows=1)
for key in range(50):
    table.learn(np.array([key], np.uint64), np.ones((1, 2), np.float32), event_time_s=key + 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_rows_that_went_cold_outlive_a_killed_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AFTER_DEMOTING, str(tmp_path), SPEC.to_json()]
    assert subprocess.run(command, check=False).returncode == -9
    want = ReferenceTable(SPEC)
    learn_in_turn(want, *range(50))
    want.erase(keys_of(49))
    store = ColdStore(tmp_path, SPEC)
    table = TieredTable(ReferenceTable(SPEC), store, max_hot_rows=1)
    assert_equal_tables(table, want)
    store.close()


def test_restoring_a_snapshot_replaces_both_tiers(make_tiered: MakeTiered) -> None:
    table, single = make_tiered(), ReferenceTable(SPEC)
    for t in (table, single):
        learn_in_turn(t, 1, 2, 3, 4)
    parts, ledger = scanned(table), table.ledger()
    learn_in_turn(table, 1, 9, 2, 8, 3)
    table.clear()
    for part in parts:
        table.import_rows(part)
    table.restore_ledger(ledger)
    assert_equal_tables(table, single)
    for t in (table, single):
        learn_in_turn(t, 1, 5, 2)
    assert_equal_tables(table, single)
    assert (table.steps, table.clock_s) == (single.steps, single.clock_s)


def test_a_store_of_another_spec_is_refused(tmp_path: Path) -> None:
    store = ColdStore(tmp_path, SPEC)
    other = TableSpec(name="other", slices=(SLICE,))
    with pytest.raises(ConfigError, match="the cold store is of 'tiered'"):
        TieredTable(ReferenceTable(other), store, max_hot_rows=1)
    store.close()
    with pytest.raises(SnapshotError, match="open it with the spec it was made for"):
        ColdStore(tmp_path, other)


def test_a_row_of_the_wrong_size_is_called_damage(tmp_path: Path) -> None:
    ColdStore(tmp_path, SPEC).close()
    with Rdict(str(tmp_path), Options(raw_mode=True)) as files:
        files[(5).to_bytes(8, "big")] = b"short"
    store = ColdStore(tmp_path, SPEC)
    for read in (lambda: store.get(keys_of(5)), lambda: store.scan(0, 10)):
        with pytest.raises(SnapshotError, match="has 5 bytes for 1 rows of 24; it is damaged"):
            read()
    store.close()


def test_a_folder_of_another_program_is_refused(tmp_path: Path) -> None:
    with Rdict(str(tmp_path), Options(raw_mode=True)) as files:
        files[b"something"] = b"else"
    with pytest.raises(SnapshotError, match="belongs to nobody"):
        ColdStore(tmp_path, SPEC)


def test_row_numbers_are_refused(make_tiered: MakeTiered) -> None:
    table = make_tiered()
    with pytest.raises(ConfigError, match="have no numbers"):
        table.row_numbers(keys_of(1))
    with pytest.raises(ConfigError, match="have no numbers"):
        table.admit(keys_of(1), event_time_s=1)
    assert len(table) == 0


@pytest.mark.parametrize("max_hot_rows", [0, True, 1.5])
def test_a_limit_that_cannot_be_is_refused(tmp_path: Path, max_hot_rows: int) -> None:
    store = ColdStore(tmp_path, SPEC)
    with pytest.raises(ConfigError, match="max_hot_rows must be"):
        TieredTable(ReferenceTable(SPEC), store, max_hot_rows=max_hot_rows)
    store.close()


def test_a_hot_table_that_evicts_or_has_rows_is_refused(tmp_path: Path) -> None:
    store, full = ColdStore(tmp_path, SPEC), ReferenceTable(SPEC)
    full.learn(keys_of(1), ones(1), event_time_s=1)
    with pytest.raises(ConfigError, match="want a new table in memory, got one of 1 rows"):
        TieredTable(full, store, max_hot_rows=1)
    evicting = TableSpec(name="tiered", slices=(SLICE,), capacity=Capacity(max_rows=9))
    with pytest.raises(ConfigError, match="a capacity has no use"):
        TieredTable(ReferenceTable(evicting), store, max_hot_rows=1)
    store.close()
