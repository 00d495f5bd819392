"""Snapshots of a sharded table: into other numbers of shards, under other rules, and beside a kill."""

import os
import signal
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import SnapshotError
from recsys.table.admission import AdmitAll, Occurrence
from recsys.table.initializers import Uniform
from recsys.table.native import NativeTable
from recsys.table.optimizers import Adagrad
from recsys.table.reference import ReferenceTable
from recsys.table.snapshot import read_manifest, read_rows, write_rows
from recsys.table.spec import SliceSpec, TableSpec

TABLES = pytest.mark.parametrize("make_table", [NativeTable, ReferenceTable])
VECTOR = SliceSpec(
    name="vector", dim=2, optimizer=Adagrad(learning_rate=0.1), initializer=Uniform(low=0.0, high=1.0)
)


def spec_with(admission):
    return TableSpec(name="sharded", slices=(VECTOR,), admission=admission)


SPEC = spec_with(Occurrence(threshold=2, width=64, depth=2))


def learn(table, keys, event_time_s=1):
    grads_ND = np.full((len(keys), 2), 0.25, np.float32)
    table.learn(np.array(keys, dtype=np.uint64), grads_ND, event_time_s=event_time_s)


def rows_by_key(tables):
    return {
        key: row.tobytes()
        for table in tables
        for key, row in zip(table.keys().tolist(), table.lookup(table.keys()), strict=True)
    }


def shard_of(n_shards):
    return lambda keys_N: (keys_N % np.uint64(n_shards)).astype(np.int64)


@settings(max_examples=25, deadline=None)
@given(saved=st.integers(1, 4), loaded=st.integers(1, 4), keys=st.lists(st.integers(0, 40), max_size=60))
@TABLES
def test_rows_of_any_number_of_shards_are_restored_into_any_other(
    make_table, saved, loaded, keys, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("shards")
    before = [make_table(SPEC) for _ in range(saved)]
    for i, table in enumerate(before):
        learn(table, [key for key in keys if key % saved == i], event_time_s=i)
    write_rows(folder, before, rows_per_chunk=4)
    after = [make_table(SPEC) for _ in range(loaded)]
    read_rows(folder, after, shard_of=shard_of(loaded))
    for i, table in enumerate(after):
        assert {key % loaded for key in table.keys().tolist()} <= {i}
    assert rows_by_key(after) == rows_by_key(before)
    if saved != loaded:
        assert {table.clock_s for table in after} == {max(table.clock_s for table in before)}
        assert {table.steps for table in after} == {max(table.steps for table in before)}
    for counter in ("admitted", "filtered"):
        totals = [sum(getattr(t.counters(), counter) for t in tables) for tables in (before, after)]
        assert totals[0] == totals[1]


@pytest.mark.parametrize("loaded", [1, 3])
def test_after_resharding_no_key_needs_more_occurrences_than_before(loaded, tmp_path):
    spec = spec_with(Occurrence(threshold=3, width=64, depth=2))
    before = [ReferenceTable(spec) for _ in range(2)]
    for i, table in enumerate(before):
        learn(table, [key for key in range(20) if key % 2 == i] * 2)
    write_rows(tmp_path, before)
    after = [ReferenceTable(spec) for _ in range(loaded)]
    read_rows(tmp_path, after, shard_of=shard_of(loaded))
    assert not any(len(table) for table in after)
    for i, table in enumerate(after):
        learn(table, [key for key in range(20) if key % loaded == i])
    assert sum(len(table) for table in after) == 20


def test_another_admission_rule_is_refused_unless_its_filter_may_begin_empty(tmp_path):
    table = NativeTable(SPEC)
    learn(table, [1, 1, 2], event_time_s=9)
    write_rows(tmp_path, table)
    other = NativeTable(spec_with(AdmitAll()))
    with pytest.raises(SnapshotError, match=r"ledger-00000-of-00001\.safetensors: .*admission rule"):
        read_rows(tmp_path, other)
    read_rows(tmp_path, other, fresh_filter=True)
    assert (other.keys().tolist(), other.clock_s, other.steps) == ([1], 9, 1)


def killed_at_event(number, work):
    """Run ``work`` in a child that dies as it turns to its file number ``number``; whether it died."""
    child = os.fork()
    if child == 0:
        left = [number]

        def die(event, _):
            if event in ("open", "os.rename", "os.remove"):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_moment_leaves_no_snapshot_or_a_whole_one(tmp_path):
    old, new = [ReferenceTable(SPEC), ReferenceTable(SPEC)], [ReferenceTable(SPEC)]
    for table in old + new:
        learn(table, [1, 1, 2, 2])
    number, was_killed, outcomes = 0, True, set()
    while was_killed:
        folder = tmp_path / str(number)
        was_killed = killed_at_event(number, lambda folder=folder: write_rows(folder, old, rows_per_chunk=1))
        is_whole = (folder / "rows.json").exists()
        outcomes.add(is_whole)
        if not is_whole:
            write_rows(folder, new)
            assert not list(folder.glob("*.tmp"))
            assert {path.name for path in folder.iterdir()} == {
                *(piece.name for piece in read_manifest(folder).pieces),
                "rows.json",
            }
        restored = ReferenceTable(SPEC)
        read_rows(folder, restored)
        assert restored.keys().tolist() == [1, 2]
        number += 1
    assert outcomes == {False, True}
    assert number > 10
