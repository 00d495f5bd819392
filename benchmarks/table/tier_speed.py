"""What a table on two tiers does per second, and where its bytes are, beside the same table in memory.

Keys are drawn evenly from all rows, so the part of a batch that is cold is the part of the table that is:
the worst case, since a real stream asks mostly for rows that it asked for lately.

Axes: R repeats, B batches of N ids.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from document import Figure

from recsys.table.cold_store import ColdStore
from recsys.table.initializers import Uniform
from recsys.table.optimizers import RowWiseAdagrad
from recsys.table.spec import SliceSpec, TableSpec
from recsys.table.table import EmbeddingTable
from recsys.table.tiered import TieredTable
from table.ids import key_batches, universe_keys
from table.timing import rate, seconds

SPEC = TableSpec(
    name="tiers",
    slices=(
        SliceSpec(
            name="vector",
            dim=16,
            optimizer=RowWiseAdagrad(learning_rate=0.05),
            initializer=Uniform(low=-0.05, high=0.05),
        ),
    ),
)
COLD_PERCENTS = (0, 10, 50, 90)
MakeTable = Callable[[TableSpec], EmbeddingTable]

_BATCHES, _BATCH = 4, 4096
_FILL_BATCH = 1 << 16
_CACHE_BYTES = 8 << 20
_SEED = 0


def tier_figures(
    make_table: MakeTable, folder: Path, *, rows: int = 1_000_000, repeats: int = 5
) -> list[Figure]:
    """Rates and bytes with each of COLD_PERCENTS of the rows in stores below ``folder``."""
    figures = []
    bytes_in_memory = 1.0
    for percent in COLD_PERCENTS:
        max_hot_rows = rows * (100 - percent) // 100
        store = ColdStore(folder / f"cold-{percent}", SPEC, cache_bytes=_CACHE_BYTES)
        table = TieredTable(make_table(SPEC), store, max_hot_rows=max_hot_rows)
        fill(table, rows)
        figures += rate_figures(table, f"{percent}_percent_cold", rows, repeats)
        table.compact()
        memory = table.memory()
        held = memory.bytes_reserved + memory.bytes_index + store.bytes_in_memory()
        if percent == 0:
            bytes_in_memory = held
        figures += [
            _value(f"memory_{percent}_percent_cold_vs_all_in_memory", held / bytes_in_memory, "ratio"),
            _value(f"memory_{percent}_percent_cold", held / rows, "bytes/row"),
            _value(f"disk_{percent}_percent_cold", store.bytes_on_disk() / rows, "bytes/row"),
        ]
        store.close()
    return figures


def fill(table: TieredTable, rows: int) -> None:
    """Learn every key once, each batch a second after the one before."""
    keys_K = universe_keys(rows)
    grads_ND = np.full((_FILL_BATCH, SPEC.dim), 0.1, dtype=np.float32)
    for second, begin in enumerate(range(0, rows, _FILL_BATCH)):
        keys_N = keys_K[begin : begin + _FILL_BATCH]
        table.learn(keys_N, grads_ND[: len(keys_N)], event_time_s=1 + second)


def rate_figures(table: TieredTable, name: str, rows: int, repeats: int) -> list[Figure]:
    """Ids looked up and learned from per second; every batch has other keys than the ones before."""
    keys_BN = key_batches("uniform", (2 * repeats * _BATCHES, _BATCH), rows, seed=_SEED)
    grads_ND = np.full((_BATCH, SPEC.dim), 0.1, dtype=np.float32)
    read_R, learn_R = np.empty(repeats), np.empty(repeats)
    for repeat in range(repeats):
        begin = 2 * repeat * _BATCHES
        read_BN = keys_BN[begin : begin + _BATCHES]
        learn_BN = keys_BN[begin + _BATCHES : begin + 2 * _BATCHES]
        second = 1_000_000 + repeat
        read_R[repeat] = seconds([partial(table.lookup, keys_N) for keys_N in read_BN])
        learn_R[repeat] = seconds(
            [partial(table.learn, keys_N, grads_ND, event_time_s=second) for keys_N in learn_BN]
        )
    n_ids = _BATCHES * _BATCH
    return [rate(f"lookup_{name}", n_ids, read_R), rate(f"learn_{name}", n_ids, learn_R)]


def _value(name: str, value: float, unit: str) -> Figure:
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "bar": None,
        "holds": None,
        "low": None,
        "high": None,
    }
