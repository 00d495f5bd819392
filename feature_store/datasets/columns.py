"""From an owner's files to integer columns: reading by name, and giving codes to texts and numbers.

Every code is 1 or more, so that 0 stays free for "unknown" (null, empty or never seen). Codes follow
the sorted order of what the column holds: the same file gives the same codes on every machine.

Axes: N rows, T values of a multi-valued column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.errors import DatasetLayoutError, DatasetUnavailable
from recsys.features import Ragged
from recsys.keys import Ids

PARQUET_MAGIC = b"PAR1"


def read_csv(
    source: Path | pa.BufferReader,
    *,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    encoding: str = "utf8",
    is_quoted: bool = True,
) -> pa.Table:
    """A delimited file as a table; ``names`` where it has no header line."""
    return pa_csv.read_csv(
        source,
        read_options=pa_csv.ReadOptions(column_names=names, encoding=encoding),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, quote_char='"' if is_quoted else False),
        # Arrow's own list would take a film called "Null" for a missing one.
        convert_options=pa_csv.ConvertOptions(strings_can_be_null=True, null_values=["", "nan", "NaN"]),
    )


def read_table(path: Path) -> pa.Table:
    """A parquet or csv file, told apart by how it begins.

    Raises DatasetUnavailable when it cannot be opened, DatasetLayoutError when it is neither or broken.
    """
    try:
        with path.open("rb") as file:
            is_parquet = file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    except OSError as error:
        raise DatasetUnavailable(
            f"cannot read {path}: {error.strerror}; name a parquet or csv file"
        ) from error
    try:
        # No partitioning: a folder named "date=…" above the file must not add a column.
        return pq.read_table(path, partitioning=None) if is_parquet else read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetLayoutError(f"{path} is no whole parquet or csv file: {error}") from error


def column(table: pa.Table, *names: str) -> pa.ChunkedArray:
    """The first column that bears one of ``names``. Raises DatasetLayoutError when none does."""
    for name in names:
        if name in table.column_names:
            return table[name]
    raise DatasetLayoutError(f"want a column named {' or '.join(names)}; got {table.column_names}")


def integers(values: pa.ChunkedArray, *, null: int = 0) -> Ids:
    """Whole numbers as they are, (N,); ``null`` stands for null and NaN.

    Raises DatasetLayoutError when one is not a number.
    """
    try:
        # A csv column without a single value has no type of its own.
        if pa.types.is_null(values.type):
            values = pc.cast(values, pa.int64())
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = pc.cast(values, pa.float64())
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)
        return np.asarray(pc.cast(pc.fill_null(values, null), pa.int64(), safe=False))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OverflowError) as error:
        raise DatasetLayoutError(f"want a column of numbers, got {values.type}: {error}") from error


def shifted(values: pa.ChunkedArray) -> Ids:
    """Small numbers from 0 on, plus 1, (N,); 0 where null or negative."""
    return np.maximum(integers(values, null=-1) + 1, 0)


def flags(values: pa.ChunkedArray) -> Ids:
    """2 for yes, 1 for no (whatever number stands for it), 0 for null, (N,)."""
    number_N = integers(values, null=-(2**31))
    return np.where(number_N == -(2**31), 0, np.where(number_N > 0, 2, 1))


def texts(values: pa.ChunkedArray) -> list[str]:
    """Texts, (N,); null is empty."""
    return [str(text) for text in pc.fill_null(pc.cast(values, pa.string()), "").to_pylist()]


def codes(values: Iterable[Any], *, unknown: Sequence[Any] = ("", None)) -> Ids:
    """1 + place among the sorted distinct values, (N,); 0 for those that mean "unknown"."""
    listed = list(values)
    known = sorted({value for value in listed if value not in unknown})
    place = {value: code for code, value in enumerate(known, start=1)}
    return np.array([place.get(value, 0) for value in listed], dtype=np.int64)


def dense(values_N: NDArray[np.int64]) -> Ids:
    """Codes of numbers, (N,): 1 + place among the sorted distinct ones; 0 for 0 and below."""
    return np.searchsorted(np.unique(values_N[values_N > 0]), values_N, side="right") * (values_N > 0)


def list_codes(lists: Sequence[Sequence[str]]) -> Ragged:
    """Codes of texts in lists; empty texts and repeats within a list are left out."""
    kept = [list(dict.fromkeys(text for text in listed if text)) for listed in lists]
    lengths_N = np.array([len(listed) for listed in kept], dtype=np.int64)
    return Ragged(codes(text for listed in kept for text in listed), lengths_N)


def list_numbers(lists: Sequence[Sequence[str]]) -> Ragged:
    """1 + the number that each text in the lists is, whatever else the column holds; repeats are left out.

    Raises DatasetLayoutError for a text that is no number from 0 to below 10**18.
    """
    kept = [list(dict.fromkeys(listed)) for listed in lists]
    for text in (text for listed in kept for text in listed):
        if not text.isdecimal() or len(text) > 18:
            raise DatasetLayoutError(f"want lists of numbers from 0 on, got {text!r} in one")
    lengths_N = np.array([len(listed) for listed in kept], dtype=np.int64)
    return Ragged(np.array([1 + int(text) for listed in kept for text in listed], np.int64), lengths_N)


def first_of(lists: Ragged) -> Ids:
    """First value of each list, (N,); 0 where it is empty."""
    first_N = np.zeros(len(lists.lengths_N), dtype=np.int64)
    starts_N = np.cumsum(lists.lengths_N) - lists.lengths_N
    has_any_N = lists.lengths_N > 0
    first_N[has_any_N] = lists.values_T[starts_N[has_any_N]]
    return first_N


def last_of_each(lists: pa.ChunkedArray, at_most: int) -> Ragged:
    """The last ``at_most`` numbers of each list, oldest first."""
    whole = lists.combine_chunks()
    offsets_N = np.asarray(whole.offsets).astype(np.int64)
    starts_N, ends_N = offsets_N[:-1], offsets_N[1:]
    lengths_N = np.minimum(ends_N - starts_N, at_most)
    skipped_N = np.cumsum(lengths_N) - lengths_N
    source_T = np.repeat(ends_N - lengths_N - skipped_N, lengths_N) + np.arange(lengths_N.sum())
    return Ragged(np.asarray(whole.values).astype(np.int64)[source_T], lengths_N)
