"""How long a look-up takes while another thread learns without pause and a third writes a snapshot."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from document import Figure

from recsys.table.native import NativeTable
from recsys.table.snapshot import write_rows
from table.ids import Ids, key_batches, universe_keys
from table.maps import plain
from table.subjects import embedding_table, fill

KEYS_PER_REQUEST, LEARNED = 3_200, 8_192
LATENCY_BAR = 3.0
GAP_S = 0.002


def reader_figures(n_rows: int, requests: int) -> list[Figure]:
    """A request's look-up, quiet, beside a writer, and beside the writer and the snapshots."""
    table = embedding_table(16)
    fill(table, universe_keys(n_rows))
    ids_BN = key_batches("zipf", (requests, KEYS_PER_REQUEST), n_rows, seed=21)
    latencies_ms(table, ids_BN[: requests // 4])
    quiet = latencies_ms(table, ids_BN)
    figures = spread("quiet", quiet)
    for name, works, bar in (
        ("beside_a_writer", (learn_until,), None),
        ("busy", (learn_until, snapshot_until), f"<= {LATENCY_BAR}"),
    ):
        took = latencies_beside(table, ids_BN, works)
        slower = float(np.quantile(took, 0.99) / np.quantile(quiet, 0.99))
        figures += [*spread(name, took), plain(f"read_p99_{name}_vs_quiet", slower, "ratio", bar=bar)]
    return figures


def spread(name: str, took_ms: list[float]) -> list[Figure]:
    """Median and 99th percentile."""
    return [
        plain(f"read_3200_keys_{name}_p{percent}", float(np.percentile(took_ms, percent)), "ms")
        for percent in (50, 99)
    ]


def latencies_beside(table: NativeTable, ids_BN: Ids, works: Sequence[Callable]) -> list[float]:
    """While a thread each does one of ``works``."""
    done = threading.Event()
    others = [threading.Thread(target=work, args=(table, done)) for work in works]
    for other in others:
        other.start()
    took = latencies_ms(table, ids_BN)
    done.set()
    for other in others:
        other.join()
    return took


def latencies_ms(table: NativeTable, ids_BN: Ids) -> list[float]:
    """Of one request after another, with a gap between as a server has."""
    took = []
    for ids_N in ids_BN:
        begun = time.perf_counter()
        table.lookup(ids_N)
        took.append((time.perf_counter() - begun) * 1e3)
        time.sleep(GAP_S)
    return took


def learn_until(table: NativeTable, done: threading.Event) -> None:
    ids_BN = key_batches("zipf", (32, LEARNED), len(table), seed=22)
    grads_ND = np.full((LEARNED, table.spec.dim), 0.01, dtype=np.float32)
    while not done.is_set():
        for ids_N in ids_BN:
            table.learn(ids_N, grads_ND, event_time_s=2)


def snapshot_until(table: NativeTable, done: threading.Event) -> None:
    """Snapshots without pause, at the lowest priority, as work that nobody waits for should be."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    while not done.is_set():
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder) / "rows", table)
