"""The native table under threads: readers beside a growing writer, and batches split among threads."""

import threading

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.table import (
    BF16,
    SGD,
    Adam,
    Bags,
    Capacity,
    Expiry,
    Occurrence,
    RowWiseAdagrad,
    SliceSpec,
    TableSpec,
    Uniform,
    Zeros,
)
from recsys.table.native import NativeTable
from recsys.table.reference import ReferenceTable

# All columns start equal and get equal gradients, so a row is whole exactly when they are equal.
COUNTING = TableSpec(
    name="counting",
    slices=(SliceSpec(name="w", dim=24, optimizer=SGD(learning_rate=1.0), initializer=Zeros()),),
)


class Readers:
    """Threads that call ``read`` again and again until they are told to stop; each wrong answer is kept."""

    def __init__(self, read, n=3):
        self.wrong, self._done, self._read = [], threading.Event(), read
        self._threads = [threading.Thread(target=self._run) for _ in range(n)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        seen = {}
        while not self._done.is_set():
            wrong = self._read(seen)
            if wrong is not None:
                self.wrong.append(wrong)


def is_whole(rows_ND):
    return bool((rows_ND == rows_ND[:, :1]).all())


def test_readers_see_whole_rows_while_the_table_learns_and_grows():
    table = NativeTable(COUNTING)
    hot_N = np.arange(3000, dtype=np.uint64)
    table.assign(hot_N, np.zeros((3000, 24), np.float32))

    def read(seen):
        rows_ND = table.lookup(hot_N)
        exported_ND = table.export_rows(hot_N[:700]).weights_ND
        # Steps go down by 1 and are applied in order: no row may ever seem younger again.
        is_older = rows_ND[0, 0] > seen.get("newest", 0.0)
        seen["newest"] = rows_ND[0, 0]
        is_right = is_whole(rows_ND) and is_whole(exported_ND) and table.contains(hot_N).all()
        return None if is_right and not is_older else rows_ND

    with Readers(read) as readers:
        for step in range(150):
            fresh_N = np.arange(700, dtype=np.uint64) + np.uint64(10_000 * (step + 1))
            table.learn(np.concatenate([hot_N, fresh_N]), np.ones((3700, 24), np.float32), event_time_s=step)
            if step % 5 == 0:
                table.erase(fresh_N)
    assert not readers.wrong
    assert (table.lookup(hot_N) == -150).all()


def test_readers_see_whole_rows_while_others_are_evicted_swept_and_compacted():
    spec = TableSpec(
        name="turnover",
        slices=COUNTING.slices,
        capacity=Capacity(max_rows=2000),
        expiry=Expiry(max_idle_s=3),
    )
    table = NativeTable(spec)
    hot_N = np.arange(500, dtype=np.uint64)
    table.learn(hot_N, np.ones((500, 24), np.float32), event_time_s=1)

    def read(seen):
        one_bag = Bags(offsets=np.array([0, 500], dtype=np.int64))
        sums_BD = table.lookup_bags(hot_N, one_bag)
        parts, cursor = [], 0
        while not parts or cursor:
            rows, cursor = table.scan(cursor, 300)
            parts.append(rows.weights_ND)
        is_right = is_whole(table.lookup(hot_N)) and is_whole(sums_BD) and is_whole(np.concatenate(parts))
        return None if is_right else parts

    with Readers(read, n=2) as readers:
        for step in range(2, 120):
            passing_N = np.arange(step * 1000, step * 1000 + 600, dtype=np.uint64)
            for keys_N in (hot_N, passing_N, hot_N):
                table.learn(keys_N, np.ones((len(keys_N), 24), np.float32), event_time_s=step)
            table.sweep(400)
            if step % 20 == 0:
                table.compact()
    assert not readers.wrong
    assert len(table) <= 2000


class Split:
    """Batches large enough to be split, and what each table answers once it has learned them."""

    slices = (
        SliceSpec(name="w", dim=1, optimizer=SGD(learning_rate=0.1), initializer=Zeros()),
        SliceSpec(
            name="v", dim=2, optimizer=RowWiseAdagrad(learning_rate=0.1), initializer=Uniform(low=-1, high=1)
        ),
        SliceSpec(
            name="u",
            dim=3,
            optimizer=Adam(learning_rate=0.1),
            initializer=Zeros(),
            codec=BF16(rounding="stochastic"),
        ),
    )
    spec = TableSpec(
        name="split", slices=slices, missing="initializer", admission=Occurrence(threshold=2, width=1 << 15)
    )

    def __init__(self):
        random = np.random.default_rng(4)
        self.keys_N = random.zipf(1.1, 30_000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self.grads_ND = random.normal(size=(30_000, 6)).astype(np.float32)
        self.bags = Bags(
            offsets=np.arange(0, 30_001, 3, dtype=np.int64),
            scale_B=random.normal(size=10_000).astype(np.float32),
        )
        self.reference = self.answers_of(ReferenceTable(self.spec))

    def answers_of(self, table):
        follower = table.follow()
        table.learn(self.keys_N, self.grads_ND, event_time_s=1)
        table.learn_bags(self.keys_N, self.bags, self.grads_ND[:10_000], event_time_s=2)
        assert len(table) > 8192
        return {
            "rows": table.lookup(self.keys_N).tobytes(),
            "sums": table.lookup_bags(self.keys_N, self.bags).tobytes(),
            "numbers": table.row_numbers(self.keys_N).tolist(),
            "touched": table.drain(follower).touched_N.tolist(),
            "counters": table.counters(),
        }


@pytest.fixture(scope="module")
def split():
    return Split()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_batch_split_among_threads_gives_the_reference_s_bits(split, threads):
    assert split.answers_of(NativeTable(Split.spec, threads=threads)) == split.reference


def test_a_table_without_threads_is_refused():
    with pytest.raises(ConfigError, match="threads must be >= 1"):
        NativeTable(COUNTING, threads=0)
