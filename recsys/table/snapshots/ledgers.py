"""One ledger for each shard, made from those of another number of shards.

Which keys a count-min sketch has counted cannot be told, so it cannot be split. Every new shard gets
the cell-wise maximum of all: no key is estimated below what its old shard made of it, some are above,
and ageing takes that away again. The sketch then holds the new keys of all shards, so what it counts
towards its next ageing is their sum. Totals go to the first shard; steps and clock are the largest.

Shards of the same number are taken to hold the same keys, and go on from their own ledgers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.table.admission import COUNTERS
from recsys.table.table import Ledger

# What happened, as against what the filter goes on from.
_TOTALS = [COUNTERS.index("admitted"), COUNTERS.index("refused")]
_DRAWS = COUNTERS.index("draws")


def ledgers_for(n_shards: int, ledgers: Sequence[Ledger]) -> list[Ledger]:
    """The ledgers of ``n_shards`` shards, given checked ledgers of shards of the same table."""
    if len(ledgers) == n_shards:
        return list(ledgers)
    totals = _sum([ledger["counters"] for ledger in ledgers])
    filters = [ledger["admission_counters"] for ledger in ledgers]
    merged = _sum(filters)
    merged[_DRAWS] = np.max(filters, axis=0)[_DRAWS]
    others = merged.copy()
    others[_TOTALS] = 0
    shared = {
        "steps": np.max([ledger["steps"] for ledger in ledgers], axis=0),
        "clock_s": np.max([ledger["clock_s"] for ledger in ledgers], axis=0),
        "admission_cells": np.maximum.reduce([ledger["admission_cells"] for ledger in ledgers]),
    }
    first: Ledger = {**shared, "counters": totals, "admission_counters": merged}
    rest: Ledger = {**shared, "counters": np.zeros_like(totals), "admission_counters": others}
    return [first, *(rest for _ in range(n_shards - 1))]


def with_empty_filter(ledger: Ledger, like: Ledger) -> Ledger:
    """The ledger with an admission filter that has seen nothing, of the size of the one in ``like``."""
    empty = {name: np.zeros_like(like[name]) for name in ("admission_cells", "admission_counters")}
    return {**ledger, **empty}


def _sum(counters: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.add.reduce(np.stack(counters), axis=0, dtype=np.uint64)  # type: ignore[no-any-return]
