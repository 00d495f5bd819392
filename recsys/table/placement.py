"""Where a key belongs among several tables, and how they take turns at the work that goes row by row.

Axes: N keys of one call, S tables.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.hashing import mix64_each
from recsys.table.table import Keys

Shards = NDArray[np.uint16]
MAX_SHARDS = 1 << 16


def shard_of(keys_N: Keys, n_shards: int) -> Shards:
    """Which of ``n_shards`` (1 to 65536) each key belongs to, (N,); evenly, however the keys are chosen.

    A table's index takes its buckets from mix64(key). Hashing that once more, and multiplying rather than
    dividing (Lemire, "Fast random integer generation in an interval", 2019), leaves every bucket of
    every shard in use.
    """
    high_N = mix64_each(mix64_each(keys_N)) >> np.uint64(32)
    return ((high_N * np.uint64(n_shards)) >> np.uint64(32)).astype(np.uint16)


def shares(cursor: int, max_rows: int, rows_S: Sequence[int]) -> tuple[list[int], int]:
    """How many of the next ``max_rows`` rows fall to each of several tables, and the cursor to go on from.

    All rows stand in one line, which begins again at its end; the cursor is a place in it. Where
    ``max_rows`` is enough for all, each table gets it whole, so that it sees its free rows as well.
    """
    total = sum(rows_S)
    if max_rows >= total:
        return [max_rows] * len(rows_S), 0
    begin = cursor % total
    end = begin + max_rows
    share_S, first = [], 0
    for rows in rows_S:
        lap = max(0, min(end, first + rows) - max(begin, first))
        next_lap = max(0, min(end - total, first + rows) - first)
        share_S.append(lap + next_lap)
        first += rows
    return share_S, end % total
