"""Whole rows by key, against the limit and FBGEMM's unpooled look-up, which is given row numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
from document import Figure

from table.fbgemm import Fbgemm
from table.ids import key_batches, universe_keys
from table.limit import INDEX_BYTES_PER_KEY, Limit
from table.subjects import embedding_table, fill
from table.timing import Call, interleaved, rate, ratio

BATCH = 16_384
LIMIT_BAR, FBGEMM_BAR = 0.6, 1.0


def row_figures(n_rows: int, dim: int, *, repeats: int) -> list[Figure]:
    """Rates at ``n_rows`` rows of ``dim`` floats."""
    keys_K = universe_keys(n_rows)
    table = embedding_table(dim)
    fill(table, keys_K)
    limit = Limit(index_bytes=INDEX_BYTES_PER_KEY * n_rows, n_rows=n_rows, dim=dim)
    rival = Fbgemm(n_rows=n_rows, dim=dim, pooled=False)
    figures: list[Figure] = []
    for draw in ("uniform", "zipf"):
        ids_BN = key_batches(draw, (48, BATCH), n_rows, seed=11)
        places_BN = np.stack([table.row_numbers(ids_N) for ids_N in ids_BN])
        arms: dict[str, list[Call]] = {
            "ours": [partial(table.lookup, ids_N) for ids_N in ids_BN],
            "limit": limit.prepare(ids_BN),
            "fbgemm": rival.lookups(places_BN),
        }
        took = interleaved(arms, repeats)
        what = f"rows_dim{dim}_{draw}"
        figures.append(rate(what, ids_BN.size, took["ours"]))
        figures.append(ratio(f"{what}_vs_limit", took["ours"], took["limit"], bar=LIMIT_BAR))
        figures.append(ratio(f"{what}_vs_fbgemm", took["ours"], took["fbgemm"], bar=FBGEMM_BAR))
    return figures
