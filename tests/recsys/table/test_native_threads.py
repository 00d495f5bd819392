"""The native table under threads: readers beside a growing writer, and batches split among threads."""

import threading

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.table.native import NativeTable
from recsys.table.reference import ReferenceTable
from recsys.table.spec import SGD, RowWiseAdagrad, SliceSpec, TableSpec, Uniform, Zeros

# All columns start equal and get equal gradients, so a row is whole exactly when they are equal.
COUNTING = TableSpec(
    name="counting",
    slices=(SliceSpec(name="w", dim=24, optimizer=SGD(learning_rate=1.0), initializer=Zeros()),),
)


def test_readers_see_whole_rows_while_the_table_learns_and_grows():
    table = NativeTable(COUNTING)
    hot_N = np.arange(3000, dtype=np.uint64)
    table.assign(hot_N, np.zeros((3000, 24), np.float32))
    done, torn = threading.Event(), []

    def read():
        newest = 0.0
        while not done.is_set():
            rows_ND = table.lookup(hot_N)
            exported_ND = table.export_rows(hot_N[:700]).weights_ND
            whole = all((r == r[:, :1]).all() for r in (rows_ND, exported_ND))
            # Steps go down by 1 and are applied in order: no row may ever seem younger again.
            if not whole or rows_ND[0, 0] > newest or not table.contains(hot_N).all():
                torn.append(rows_ND)
            newest = rows_ND[0, 0]

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for step in range(150):
        fresh_N = np.arange(700, dtype=np.uint64) + np.uint64(10_000 * (step + 1))
        table.learn(np.concatenate([hot_N, fresh_N]), np.ones((3700, 24), np.float32), event_time_s=step)
        if step % 5 == 0:
            table.erase(fresh_N)
    done.set()
    for reader in readers:
        reader.join()
    assert not torn
    assert (table.lookup(hot_N) == -150).all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_batch_split_among_threads_gives_the_reference_s_bits(threads):
    slices = (
        SliceSpec(name="w", dim=1, optimizer=SGD(learning_rate=0.1), initializer=Zeros()),
        SliceSpec(
            name="v", dim=2, optimizer=RowWiseAdagrad(learning_rate=0.1), initializer=Uniform(low=-1, high=1)
        ),
    )
    spec = TableSpec(name="split", slices=slices, missing="initializer")
    native, reference = NativeTable(spec, threads=threads), ReferenceTable(spec)
    random = np.random.default_rng(4)
    keys_N = random.zipf(1.3, 20_000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    grads_ND = random.normal(size=(20_000, 3)).astype(np.float32)
    for table in (native, reference):
        table.learn(keys_N, grads_ND, event_time_s=1)
    asked_N = np.concatenate([keys_N[:16_000], np.arange(1000, dtype=np.uint64)])
    assert native.lookup(asked_N).tobytes() == reference.lookup(asked_N).tobytes()
    assert native.drain_touched().tolist() == reference.drain_touched().tolist()


def test_a_table_without_threads_is_refused():
    with pytest.raises(ConfigError, match="threads must be >= 1"):
        NativeTable(COUNTING, threads=0)
