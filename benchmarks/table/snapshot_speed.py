"""How fast rows go to the disk and back, beside the disk's own rate, and what learning keeps meanwhile.

Writes and reads run once in each repeat beside the plain form of the same bytes, since a disk's rate
moves from one second to the next. Writes end with fsync; reads begin with the file out of the cache.

Axes: R repeats.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from document import Figure

from recsys.table.initializers import Uniform
from recsys.table.optimizers import RowWiseAdagrad
from recsys.table.snapshot import SnapshotChain, read_rows, write_rows
from recsys.table.spec import SliceSpec, TableSpec
from recsys.table.table import EmbeddingTable, Floats, Keys, TableRows
from table.timing import Times, ratio, seconds

SPEC = TableSpec(
    name="snapshot",
    slices=(
        SliceSpec(
            name="vector",
            dim=64,
            optimizer=RowWiseAdagrad(learning_rate=0.05),
            initializer=Uniform(low=-0.05, high=0.05),
        ),
    ),
)
MakeTable = Callable[[TableSpec], EmbeddingTable]

_BLOCK = 4 << 20
_BATCH = 4096
_SLICE = 16_384
"""Rows that one call of advance may write: how long it keeps a finish waiting."""


def disk_figures(make_table: MakeTable, folder: Path, *, rows: int, repeats: int = 5) -> list[Figure]:
    """Writing and restoring ``rows`` rows, against the same bytes as a plain file in ``folder``."""
    table = filled(make_table, rows)
    plain, snapshot = folder / "plain", folder / "rows"
    n_bytes = sum(piece.bytes for piece in write_rows(snapshot, table).pieces)
    took = {name: np.empty(repeats) for name in ("write", "plain write", "read", "plain read")}
    for repeat in range(repeats):
        shutil.rmtree(snapshot)
        plain.unlink(missing_ok=True)
        took["plain write"][repeat] = seconds([partial(write_plain, plain, n_bytes)])
        took["write"][repeat] = seconds([partial(write_rows, snapshot, table)])
        restored = make_table(SPEC)
        forget([plain, *snapshot.iterdir()])
        took["plain read"][repeat] = seconds([partial(read_plain, plain)])
        took["read"][repeat] = seconds([partial(read_rows, snapshot, restored)])
    shutil.rmtree(snapshot)
    plain.unlink()
    return [
        *(throughput(f"snapshot_{name.replace(' ', '_')}", n_bytes, took[name]) for name in took),
        ratio("snapshot_write_vs_disk", took["write"], took["plain write"], bar=0.5),
        ratio("snapshot_restore_vs_disk", took["read"], took["plain read"], bar=0.5),
    ]


def learning_figures(make_table: MakeTable, folder: Path, *, rows: int, repeats: int = 5) -> list[Figure]:
    """Batches learned while another thread writes a full snapshot, against as many batches alone."""
    table = filled(make_table, rows)
    random = np.random.default_rng(1)
    # Sorted by age, a Zipf head of keys is hot, as in a stream.
    batches = [keys_of(np.minimum(random.zipf(1.05, _BATCH), rows) - 1) for _ in range(64)]
    grads_ND = np.full((_BATCH, SPEC.dim), 0.01, dtype=np.float32)
    beside_R, alone_R, finish_R = np.empty(repeats), np.empty(repeats), np.empty(repeats)
    for repeat in range(-1, repeats):
        n, beside_s, finish_s = _learn_beside_snapshot(table, batches, grads_ND, folder / "rows")
        shutil.rmtree(folder / "rows")
        alone_s = seconds([partial(_learn, table, batches, grads_ND, i) for i in range(n)])
        if repeat >= 0:
            beside_R[repeat], alone_R[repeat], finish_R[repeat] = beside_s, alone_s, finish_s
    return [
        ratio("learning_beside_snapshot", beside_R, alone_R, bar=0.7),
        _figure("snapshot_finish", finish_R * 1e3, "ms"),
    ]


def filled(make_table: MakeTable, rows: int) -> EmbeddingTable:
    """A table with this many rows of random floats, none of which a disk could store shorter."""
    random = np.random.default_rng(0)
    table = make_table(SPEC)
    for begin in range(0, rows, _SLICE):
        keys_N = keys_of(np.arange(begin, min(begin + _SLICE, rows)))
        n = len(keys_N)
        table.import_rows(
            TableRows(
                keys_N=keys_N,
                weights_ND=random.random((n, SPEC.dim), dtype=np.float32),
                state_NS=random.random((n, SPEC.state_dim), dtype=np.float32),
                last_seen_s_N=np.ones(n, dtype=np.uint32),
                count_N=np.ones(n, dtype=np.uint32),
            )
        )
    return table


def keys_of(places_N: np.ndarray) -> Keys:
    """Keys that lie apart, one for each place."""
    return places_N.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def write_plain(path: Path, n_bytes: int) -> None:
    """Write so many random bytes, and wait until the disk has them."""
    block = np.random.default_rng(0).bytes(_BLOCK)
    with path.open("wb", buffering=0) as file:
        for begin in range(0, n_bytes, _BLOCK):
            file.write(block[: n_bytes - begin])
        os.fsync(file.fileno())


def read_plain(path: Path) -> None:
    """Read a file from begin to end into the same memory."""
    block = bytearray(_BLOCK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass


def forget(paths: list[Path]) -> None:
    """Take files out of the cache."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def throughput(name: str, n_bytes: int, took_R: Times) -> Figure:
    """Megabytes a second, where each repeat moved ``n_bytes``."""
    return _figure(name, n_bytes / took_R / 1e6, "MB/s")


def _learn(table: EmbeddingTable, batches: list[Keys], grads_ND: Floats, number: int) -> None:
    table.learn(batches[number % len(batches)], grads_ND, event_time_s=1)


def _learn_beside_snapshot(
    table: EmbeddingTable, batches: list[Keys], grads_ND: Floats, folder: Path
) -> tuple[int, float, float]:
    """Batches learned until the snapshot was on disk, seconds that took, and seconds of finish alone."""
    chain, caught_up, learned = SnapshotChain(table), threading.Event(), 0

    def advance() -> None:
        while not writer.advance(_SLICE):
            pass
        caught_up.set()

    begun = time.perf_counter()
    with chain.full(folder) as writer:
        beside = threading.Thread(target=advance)
        beside.start()
        while not caught_up.is_set():
            _learn(table, batches, grads_ND, learned)
            learned += 1
        beside.join()
        finish_begun = time.perf_counter()
        writer.finish()
        ended = time.perf_counter()
    chain.close()
    return learned, ended - begun, ended - finish_begun


def _figure(name: str, values_R: Times, unit: str) -> Figure:
    low, median, high = (round(float(q), 3) for q in np.quantile(values_R, [0.25, 0.5, 0.75]))
    return {
        "name": name,
        "value": median,
        "unit": unit,
        "bar": None,
        "holds": None,
        "low": low,
        "high": high,
    }
