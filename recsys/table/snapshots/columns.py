"""Rows of a table as Arrow columns and back, sharing their memory.

Axes: N rows of a batch, D weights of a row, S floats of its optimizer state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.table.spec import TableSpec
from recsys.table.table import Floats, Keys, TableRows

T = TypeVar("T")

_KEYS_SCHEMA = pa.schema([pa.field("key", pa.uint64(), nullable=False)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout(Generic[T]):
    """Columns of a file, and what a batch of them is decoded to."""

    schema: pa.Schema
    """Names and types; a file with any other is refused."""
    decode: Callable[[pa.RecordBatch], T]
    """Raises pyarrow.ArrowInvalid where a value is null."""


def rows_layout(spec: TableSpec) -> Layout[TableRows]:
    """Of a rows file: whole rows, weights decoded to float32."""
    schema = pa.schema(
        [
            pa.field("key", pa.uint64(), nullable=False),
            pa.field("weights", _floats(spec.dim), nullable=False),
            pa.field("state", _floats(spec.state_dim), nullable=False),
            pa.field("last_seen_s", pa.uint32(), nullable=False),
            pa.field("count", pa.uint32(), nullable=False),
        ]
    )
    return Layout(schema=schema, decode=to_rows)


def keys_layout() -> Layout[Keys]:
    """Of a file of keys alone."""
    return Layout(schema=_KEYS_SCHEMA, decode=to_keys)


def to_batch(rows: TableRows, schema: pa.Schema) -> pa.RecordBatch:
    """The rows as a record batch over the same memory, which must not change meanwhile."""
    arrays: list[NDArray[Any]] = [
        rows.keys_N,
        rows.weights_ND,
        rows.state_NS,
        rows.last_seen_s_N,
        rows.count_N,
    ]
    columns = [_to_column(array, field.type) for array, field in zip(arrays, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def keys_to_batch(keys_N: Keys) -> pa.RecordBatch:
    """Keys alone as a record batch over the same memory."""
    return pa.RecordBatch.from_arrays([_to_column(keys_N, pa.uint64())], schema=_KEYS_SCHEMA)


def to_rows(batch: pa.RecordBatch) -> TableRows:
    """A batch as rows over the same memory, read-only. Raises pyarrow.ArrowInvalid where a value is null."""
    keys_N, weights, state, last_seen_s_N, count_N = batch.columns
    return TableRows(
        keys_N=_to_array(keys_N),
        weights_ND=_to_matrix(weights),
        state_NS=_to_matrix(state),
        last_seen_s_N=_to_array(last_seen_s_N),
        count_N=_to_array(count_N),
    )


def to_keys(batch: pa.RecordBatch) -> Keys:
    """A batch as keys over the same memory, read-only. Raises pyarrow.ArrowInvalid where one is null."""
    keys_N: Keys = _to_array(batch.column(0))
    return keys_N


def _floats(width: int) -> pa.DataType:
    return pa.list_(pa.field("item", pa.float32(), nullable=False), width)


def _to_column(array: NDArray[Any], arrow_type: pa.DataType) -> pa.Array:
    buffer = pa.py_buffer(array)
    if array.ndim == 1:
        return pa.Array.from_buffers(arrow_type, len(array), [None, buffer])
    # Not FixedSizeListArray.from_arrays: it cannot tell how many lists of no floats there are.
    values = pa.Array.from_buffers(pa.float32(), array.size, [None, buffer])
    return pa.Array.from_buffers(arrow_type, len(array), [None], children=[values])


def _to_array(column: pa.Array) -> NDArray[Any]:
    array: NDArray[Any] = column.to_numpy(zero_copy_only=True)
    return array


def _to_matrix(column: pa.Array) -> Floats:
    width = column.type.list_size
    if column.null_count:
        raise pa.ArrowInvalid("a row has no floats")
    values: Floats = column.values.to_numpy(zero_copy_only=True)
    return np.ascontiguousarray(values[: len(column) * width]).reshape(len(column), width)
