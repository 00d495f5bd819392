"""How long a look-up takes while another thread learns without pause and a third writes a snapshot."""

from __future__ import annotations

import os
import tempfile
import threading
import time
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
    """p99 of a request's look-up, quiet and beside the two others."""
    table = embedding_table(16)
    fill(table, universe_keys(n_rows))
    ids_BN = key_batches("zipf", (requests, KEYS_PER_REQUEST), n_rows, seed=21)
    latencies_ms(table, ids_BN[: requests // 4])
    quiet = latencies_ms(table, ids_BN)
    done = threading.Event()
    others = [
        threading.Thread(target=learn_until, args=(table, n_rows, done)),
        threading.Thread(target=snapshot_until, args=(table, done)),
    ]
    for other in others:
        other.start()
    busy = latencies_ms(table, ids_BN)
    done.set()
    for other in others:
        other.join()
    p99_quiet, p99_busy = float(np.quantile(quiet, 0.99)), float(np.quantile(busy, 0.99))
    return [
        plain("read_3200_keys_quiet_p50", float(np.median(quiet)), "ms"),
        plain("read_3200_keys_quiet_p99", p99_quiet, "ms"),
        plain("read_3200_keys_busy_p50", float(np.median(busy)), "ms"),
        plain("read_3200_keys_busy_p99", p99_busy, "ms"),
        plain("read_p99_busy_vs_quiet", p99_busy / p99_quiet, "ratio", bar=f"<= {LATENCY_BAR}"),
    ]


def latencies_ms(table: NativeTable, ids_BN: Ids) -> list[float]:
    """Of one request after another, with a gap between as a server has."""
    took = []
    for ids_N in ids_BN:
        begun = time.perf_counter()
        table.lookup(ids_N)
        took.append((time.perf_counter() - begun) * 1e3)
        time.sleep(GAP_S)
    return took


def learn_until(table: NativeTable, n_rows: int, done: threading.Event) -> None:
    ids_BN = key_batches("zipf", (32, LEARNED), n_rows, seed=22)
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
