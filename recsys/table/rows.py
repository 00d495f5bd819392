"""Rows of several tables cut apart, put together and summed, without a change to any bit.

Axes: N keys of one call, B bags, D weights of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.table.table import Floats, Offsets, TableRows

# From this length on, a bag is summed by itself; shorter ones side by side, column by column.
_LONG_BAG = 64


def rows_at(rows: TableRows, at_N: NDArray[Any] | slice) -> TableRows:
    """The rows at some positions, of a slice, or where a mask is true, in that order."""
    return TableRows(
        keys_N=rows.keys_N[at_N],
        weights_ND=rows.weights_ND[at_N],
        state_NS=rows.state_NS[at_N],
        last_seen_s_N=rows.last_seen_s_N[at_N],
        count_N=rows.count_N[at_N],
    )


def joined_rows(parts: Sequence[TableRows]) -> TableRows:
    """All rows of one part or more, part after part."""
    return TableRows(
        keys_N=np.concatenate([part.keys_N for part in parts]),
        weights_ND=np.concatenate([part.weights_ND for part in parts]),
        state_NS=np.concatenate([part.state_NS for part in parts]),
        last_seen_s_N=np.concatenate([part.last_seen_s_N for part in parts]),
        count_N=np.concatenate([part.count_N for part in parts]),
    )


def pooled(rows_ND: Floats, offsets: Offsets, scale_B: Floats | None = None) -> Floats:
    """What ``lookup_bags`` promises, (B, D): 0 + first row + second row + ..., then times the scale.

    ``np.add.reduceat`` would add pairwise, which gives other bits.
    """
    length_B = np.diff(offsets)
    sums_BD = np.zeros((len(length_B), rows_ND.shape[1]), dtype=np.float32)
    longest_first_B = np.argsort(-length_B, kind="stable")
    falling_B = -length_B[longest_first_B]
    n_long = int(np.searchsorted(falling_B, -_LONG_BAG, side="right"))
    with np.errstate(over="ignore", invalid="ignore"):
        for bag in longest_first_B[:n_long].tolist():
            running_ND = np.add.accumulate(rows_ND[offsets[bag] : offsets[bag + 1]], axis=0)
            sums_BD[bag] += running_ND[-1]
        for i in range(_LONG_BAG - 1):
            live_B = longest_first_B[n_long : np.searchsorted(falling_B, -i, side="left")]
            if not len(live_B):
                break
            sums_BD[live_B] += rows_ND[offsets[live_B] + i]
        return sums_BD if scale_B is None else sums_BD * scale_B[:, None]
