"""Snapshots beside learning, and increments: what is restored is the table at the finish."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError, SnapshotError
from recsys.table.admission import Occurrence
from recsys.table.initializers import Uniform
from recsys.table.native import NativeTable
from recsys.table.optimizers import Adagrad
from recsys.table.reference import ReferenceTable
from recsys.table.retention import LRU, Capacity, Expiry
from recsys.table.snapshot import SnapshotChain, read_manifest, read_rows, write_rows
from recsys.table.spec import SliceSpec, TableSpec

TABLES = pytest.mark.parametrize("make_table", [NativeTable, ReferenceTable])
VECTOR = SliceSpec(
    name="vector", dim=2, optimizer=Adagrad(learning_rate=0.1), initializer=Uniform(low=0.0, high=1.0)
)


def spec_with(**rules):
    return TableSpec(name="chained", slices=(VECTOR,), **rules)


SPEC = spec_with(admission=Occurrence(threshold=2, width=64, depth=2), expiry=Expiry(max_idle_s=20))
KEYS = st.lists(st.integers(0, 12) | st.just(2**64 - 1), max_size=6)
CHANGES = st.tuples(st.sampled_from(["learn", "assign", "erase", "sweep"]), KEYS)


def vector(keys):
    return np.array(keys, dtype=np.uint64)


def change(table, step, now_s):
    verb, keys = step
    grads_ND = np.full((len(keys), 2), 0.25, np.float32)
    if verb == "learn":
        table.learn(vector(keys), grads_ND, event_time_s=now_s)
    elif verb == "assign":
        table.assign(vector(keys), grads_ND)
    elif verb == "erase":
        table.erase(vector(keys))
    else:
        table.sweep(5)


def learn(table, keys, event_time_s=1):
    change(table, ("learn", list(keys)), event_time_s)


def content(table):
    """Every bit that a table must bring back, its ledger included."""
    rows = table.export_rows(table.keys())
    arrays = (rows.keys_N, rows.weights_ND, rows.state_NS, rows.last_seen_s_N, rows.count_N)
    return [array.tobytes() for array in arrays] + [
        (name, array.tobytes()) for name, array in sorted(table.ledger().items())
    ]


def restored(folders, make_table=ReferenceTable, spec=SPEC):
    table = make_table(spec)
    read_rows(folders, table)
    return content(table)


def full(chain, folder):
    with chain.full(folder) as writer:
        return writer.finish()


def increment(chain, folder):
    with chain.increment(folder) as writer:
        return writer.finish()


@settings(max_examples=40, deadline=None)
@given(
    program=st.lists(CHANGES | st.integers(1, 6), max_size=25),
    first=st.lists(CHANGES, max_size=8),
    chunk=st.integers(1, 5),
)
@TABLES
def test_a_snapshot_written_beside_learning_is_the_table_at_its_finish(
    make_table, first, program, chunk, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("snapshot")
    table = make_table(SPEC)
    for now_s, step in enumerate(first):
        change(table, step, 10 * now_s)
    chain = SnapshotChain(table, rows_per_chunk=chunk)
    with chain.full(folder) as writer:
        for now_s, step in enumerate(program, start=len(first)):
            if isinstance(step, int):
                writer.advance(step)
            else:
                change(table, step, 10 * now_s)
        writer.finish()
    assert restored(folder) == content(table)


@settings(max_examples=40, deadline=None)
@given(
    rounds=st.lists(
        st.tuples(
            st.sampled_from(["increment", "dropped", "full"]),
            st.lists(CHANGES, max_size=6),
            st.lists(CHANGES, max_size=6),
        ),
        max_size=6,
    )
)
@TABLES
def test_a_full_snapshot_and_its_increments_bring_back_the_newest_table(make_table, rounds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    table = make_table(SPEC)
    learn(table, list(range(10)) * 2)
    chain = SnapshotChain(table, rows_per_chunk=3)
    full(chain, folder / "first")
    folders = [folder / "first"]
    for i, (kind, before, beside) in enumerate(rounds):
        path = folder / str(i)
        for step in before:
            change(table, step, 10 * i)
        with chain.full(path) if kind == "full" else chain.increment(path) as writer:
            writer.advance(2)
            for step in beside:
                change(table, step, 10 * i + 5)
                writer.advance(3)
            if kind == "dropped":
                continue
            writer.finish()
        folders = [path] if kind == "full" else [*folders, path]
        assert restored(folders) == content(table)


@TABLES
def test_a_key_that_goes_and_comes_back_beside_a_snapshot_is_in_it(make_table, tmp_path):
    table = make_table(spec_with())
    learn(table, [1, 2])
    with SnapshotChain(table).full(tmp_path) as writer:
        writer.advance(10)
        table.erase(vector([1]))
        writer.advance(10)
        learn(table, [1])
        writer.finish()
    assert restored(tmp_path, spec=table.spec) == content(table)


def test_an_increment_holds_only_what_changed(tmp_path):
    table = NativeTable(spec_with())
    learn(table, range(100))
    chain = SnapshotChain(table)
    full(chain, tmp_path / "full")
    learn(table, [3, 4])
    table.erase(vector([5]))
    files = increment(chain, tmp_path / "increment").shards[0]
    assert (files.rows.entries, files.removed.entries) == (2, 1)


def test_a_chain_goes_on_from_what_was_restored(tmp_path):
    table = NativeTable(SPEC)
    learn(table, [1, 1, 2, 2])
    write_rows(tmp_path / "full", table)
    after = NativeTable(SPEC)
    read_rows(tmp_path / "full", after)
    chain = SnapshotChain(after, after=read_manifest(tmp_path / "full"))
    learn(after, [2, 3, 3])
    increment(chain, tmp_path / "increment")
    assert restored([tmp_path / "full", tmp_path / "increment"]) == content(after)


def test_a_snapshot_from_one_thread_is_exact_while_another_learns(tmp_path):
    table = NativeTable(spec_with(capacity=Capacity(max_rows=400, policy=LRU())))
    learn(table, range(400))
    random = np.random.default_rng(0)
    caught_up = threading.Event()
    chain = SnapshotChain(table, rows_per_chunk=16)
    with chain.full(tmp_path) as writer:

        def advance():
            while not writer.advance(64):
                pass
            caught_up.set()

        beside = threading.Thread(target=advance)
        beside.start()
        batches = 0
        while not caught_up.is_set() or batches < 5:
            learn(table, random.integers(0, 600, 32).tolist(), event_time_s=batches)
            table.erase(random.integers(0, 600, 4, dtype=np.uint64))
            batches += 1
        writer.finish()
        beside.join()
    assert restored(tmp_path, spec=table.spec) == content(table)


def test_a_catch_up_that_finds_little_left_says_so(tmp_path):
    table = NativeTable(spec_with())
    learn(table, range(10))
    with SnapshotChain(table).full(tmp_path) as writer:
        assert not writer.advance(9)  # rows are left to look at
        learn(table, range(10))
        assert not writer.advance(9)  # more rows than that have changed
        learn(table, range(3))
        assert not writer.advance(9)  # nine of the ten are written
        assert not writer.advance(9)  # the tenth is
        assert writer.advance(9)
        writer.finish()


@given(changed=st.integers(5, 200), max_rows=st.integers(1, 4), is_increment=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_catch_up_ends_and_the_file_stays_small_however_fast_rows_change(
    changed, max_rows, is_increment, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("chain")
    table = NativeTable(spec_with())
    learn(table, range(200))
    chain = SnapshotChain(table)
    if is_increment:
        full(chain, folder / "first")
        learn(table, range(200))
    with chain.increment(folder / "it") if is_increment else chain.full(folder / "it") as writer:
        while not writer.advance(max_rows):
            learn(table, range(changed))
        manifest = writer.finish()
    # One pass over the rows, two rounds that do not halve, and what changed before the finish.
    assert manifest.shards[0].rows.entries <= 200 + 3 * changed + 200 * is_increment


def test_restoring_a_chain_into_a_full_table_evicts_nothing(tmp_path):
    spec = spec_with(capacity=Capacity(max_rows=4, policy=LRU()))
    table = ReferenceTable(spec)
    learn(table, [1, 2, 3, 4])
    chain = SnapshotChain(table)
    full(chain, tmp_path / "full")
    table.erase(vector([1, 2, 3]))
    learn(table, [5, 6, 7])
    increment(chain, tmp_path / "increment")
    assert restored([tmp_path / "full", tmp_path / "increment"], NativeTable, spec) == content(table)


def test_a_chain_with_a_gap_or_of_another_origin_is_refused_by_name(tmp_path):
    one, two = NativeTable(SPEC), NativeTable(SPEC)
    learn(one, [1, 1])
    chain, foreign = SnapshotChain(one), SnapshotChain(two)
    full(chain, tmp_path / "full")
    full(foreign, tmp_path / "other")
    for name, of in (("a", chain), ("b", chain), ("c", foreign)):
        learn(one, [1])
        increment(of, tmp_path / name)
    table = NativeTable(SPEC)
    for names, complaint in (
        (["full", "b"], "b/rows.json .* one is missing between"),
        (["full", "c"], "c/rows.json .* it is of another chain"),
        (["full", "a", "a"], "a/rows.json .* number 1 .* want number 2"),
        (["a"], "a/rows.json .* want a full one first"),
        (["full", "other"], "other/rows.json .* want an increment"),
    ):
        with pytest.raises(SnapshotError, match=complaint):
            read_rows([tmp_path / name for name in names], table)


def test_what_a_failed_increment_had_taken_is_in_the_next(tmp_path):
    table = NativeTable(SPEC)
    learn(table, [1, 1, 2, 2])
    chain = SnapshotChain(table)
    full(chain, tmp_path / "full")
    learn(table, [1])
    table.erase(vector([2]))
    writer = chain.increment(tmp_path / "failed")
    writer.advance(10)
    (tmp_path / "failed" / "rows.json.tmp").mkdir()
    with pytest.raises(IsADirectoryError):
        writer.finish()
    with pytest.raises(ConfigError, match="finished or dropped"):
        writer.advance(1)
    increment(chain, tmp_path / "next")
    assert restored([tmp_path / "full", tmp_path / "next"]) == content(table)


def test_calls_out_of_turn_are_refused(tmp_path):
    chain = SnapshotChain(NativeTable(SPEC))
    with pytest.raises(ConfigError, match="a full one first"):
        chain.increment(tmp_path)
    with chain.full(tmp_path) as writer:
        with pytest.raises(ConfigError, match="max_rows must be >= 1"):
            writer.advance(0)
        with pytest.raises(ConfigError, match="is being written"):
            chain.full(tmp_path / "second")
    assert list(tmp_path.iterdir()) == []
    other = TableSpec(name="other", slices=(VECTOR,))
    with pytest.raises(ConfigError, match="another spec"):
        SnapshotChain(NativeTable(other), after=full(chain, tmp_path))
