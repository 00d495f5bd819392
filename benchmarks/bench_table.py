"""Time the native table's hot calls and print one JSON document.

    python benchmarks/bench_table.py [--quick]

Latencies are of one call from Python with keys in random order; ``low`` and ``high`` are quartiles.
Pin other threads with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from document import Figure, print_document

from recsys.table.native import NativeTable
from recsys.table.spec import Adagrad, RowWiseAdagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.table import Keys

SEED = 0
SPEC = TableSpec(
    name="bench",
    slices=(
        SliceSpec(name="wide", dim=1, optimizer=Adagrad(learning_rate=0.05), initializer=Zeros()),
        SliceSpec(
            name="vector",
            dim=16,
            optimizer=RowWiseAdagrad(learning_rate=0.05),
            initializer=Uniform(low=-0.05, high=0.05),
        ),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200,000 rows instead of 4,000,000")
    rows = 200_000 if parser.parse_args().quick else 4_000_000
    random = np.random.default_rng(SEED)
    keys_K = random.integers(0, 2**64, rows, dtype=np.uint64)
    table = NativeTable(SPEC)
    growth = growth_figures(table, keys_K)
    figures = [*growth, *call_figures(table, keys_K, random), *contention_figures(table, keys_K, random)]
    print_document("table", figures, seeds=[SEED])


def growth_figures(table: NativeTable, keys_K: Keys) -> list[Figure]:
    """Fill the table in batches of 1,024 new keys; the worst batch is one that doubled the index."""
    grads_ND = np.full((1024, SPEC.dim), 0.1, dtype=np.float32)
    took_s = []
    for begin in range(0, len(keys_K), 1024):
        batch_N = keys_K[begin : begin + 1024]
        took_s.append(seconds(partial(table.learn, batch_N, grads_ND[: len(batch_N)], event_time_s=1)))
    memory = table.memory()
    overhead = (memory.bytes_reserved + memory.bytes_index) / (len(table) * 4 * (SPEC.dim + SPEC.state_dim))
    return [
        latency("insert_1024_new_keys", took_s, unit="us"),
        plain("insert_1024_worst", max(took_s) * 1e3, "ms"),
        plain("bytes_per_row_over_floats", overhead, "ratio"),
    ]


def call_figures(table: NativeTable, keys_K: Keys, random: np.random.Generator) -> list[Figure]:
    def calls(n: int, repeats: int) -> tuple[list[float], list[float]]:
        grads_ND = random.normal(size=(n, SPEC.dim)).astype(np.float32)
        looked_up, learned = [], []
        for _ in range(repeats):
            batch_N = random.choice(keys_K, n)
            looked_up.append(seconds(partial(table.lookup, batch_N)))
            batch_N = random.choice(keys_K, n)
            learned.append(seconds(partial(table.learn, batch_N, grads_ND, event_time_s=2)))
        return looked_up, learned

    _, learned_small = calls(64 * 16, 300)
    distinct, _ = calls(200 * 16, 300)
    requests = [request_keys(keys_K, random) for _ in range(300)]
    served = [seconds(partial(table.lookup, request_N)) for request_N in requests]
    looked_up_big, learned_big = calls(100_000, 15)
    dense_KD = np.zeros((len(keys_K), SPEC.dim), dtype=np.float32)
    dense_KD += 1.0  # pages that were never written to are not memory yet
    places = [random.integers(0, len(keys_K), 100_000) for _ in range(15)]
    gathered = [seconds(partial(np.take, dense_KD, places_N, axis=0)) for places_N in places]
    return [
        latency("learn_64_examples_of_16_keys", learned_small, unit="us"),
        latency("lookup_200_items_of_16_keys", served, unit="us"),
        latency("lookup_3200_keys_all_cold", distinct, unit="us"),
        latency("lookup_100k_keys", looked_up_big, unit="ms"),
        latency("learn_100k_keys", learned_big, unit="ms"),
        plain("lookup_100k_over_numpy_gather", np.median(looked_up_big) / np.median(gathered), "ratio"),
    ]


def request_keys(keys_K: Keys, random: np.random.Generator) -> Keys:
    """Keys of 200 items of one request: 8 features of the user, the same for all, and 8 of the item."""
    user_keys, item_keys = random.choice(keys_K, 8), random.choice(keys_K, (200, 8))
    return np.concatenate([np.tile(user_keys, (200, 1)), item_keys], axis=1).ravel()


def contention_figures(table: NativeTable, keys_K: Keys, random: np.random.Generator) -> list[Figure]:
    """How long a small lookup takes beside a writer that never pauses."""
    batch_N = random.choice(keys_K, 8192)
    grads_ND = np.full((8192, SPEC.dim), 0.1, dtype=np.float32)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            table.learn(batch_N, grads_ND, event_time_s=3)

    writer = threading.Thread(target=write)
    writer.start()
    requests = [request_keys(keys_K, random) for _ in range(2000)]
    took_s = [seconds(partial(table.lookup, request_N)) for request_N in requests]
    done.set()
    writer.join()
    return [
        latency("lookup_200_items_beside_a_writer", took_s, unit="us"),
        plain("lookup_200_items_beside_a_writer_p99", float(np.quantile(took_s, 0.99)) * 1e3, "ms"),
    ]


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def latency(name: str, took_s: list[float], *, unit: str) -> Figure:
    low, median, high = np.quantile(took_s, [0.25, 0.5, 0.75]) * {"us": 1e6, "ms": 1e3}[unit]
    return {
        "name": name,
        "value": round(float(median), 3),
        "unit": unit,
        "bar": None,
        "holds": None,
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }


def plain(name: str, value: float, unit: str) -> Figure:
    return {
        "name": name,
        "value": round(float(value), 3),
        "unit": unit,
        "bar": None,
        "holds": None,
        "low": None,
        "high": None,
    }


if __name__ == "__main__":
    main()
