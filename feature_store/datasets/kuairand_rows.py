"""One file in the columns of KuaiRand's log, as rows to be scored: who would be shown what, where, when.

Nothing but the four columns that say this is needed, and nothing else is read: labels may be absent,
users and videos may be unknown, rows may repeat and lie in any order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store.datasets.columns import column, integers, read_table
from feature_store.datasets.kuairand import ROW_COLUMNS, TABS, UTC_OFFSET_HOURS
from feature_store.entities import RequestRows
from feature_store.errors import DatasetLayoutError
from recsys.keys import Ids


def read_kuairand_rows(path: Path) -> RequestRows:
    """The rows of a parquet or csv file, in the file's order; they fit the data set of ``load_kuairand``.

    A tab that the data set does not know, or none at all, reads as an unseen domain: index 0.
    Raises DatasetUnavailable when the file cannot be opened, DatasetLayoutError when it is no table, lacks
    a column, or has a row without a user, a video or a time.
    """
    table = read_table(path)
    missing = [name for name in ROW_COLUMNS if name not in table.column_names]
    if missing:
        raise DatasetLayoutError(f"{path}: want the columns {', '.join(missing)}; got {table.column_names}")
    tab_N = integers(column(table, "tab"), null=-1)
    return RequestRows(
        user_ids_N=_given(path, table, "user_id").astype(np.uint64),
        item_ids_N=_given(path, table, "video_id").astype(np.uint64),
        domain_index_N=np.where((tab_N >= 0) & (tab_N < len(TABS)), tab_N + 1, 0),
        event_time_ms_N=_given(path, table, "time_ms"),
        utc_offset_hours=UTC_OFFSET_HOURS,
    )


def _given(path: Path, table: pa.Table, name: str) -> Ids:
    """A column of which every row holds a number from 0 on, (N,)."""
    number_N = integers(column(table, name), null=-1)
    absent_N = np.flatnonzero(number_N < 0)
    if len(absent_N):
        raise DatasetLayoutError(
            f"{path}: want a number from 0 on as {name} of every row; "
            f"{len(absent_N)} have none, the first is row {absent_N[0]} (from 0)"
        )
    return number_N
