"""What the checks of a table share: specs, keys, gradients, and what it means for two tables to be equal.

Axes: N keys of one call, D weights of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.table import SGD, Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.table import Bags, EmbeddingTable, Floats, Keys, TableRows

MakeTable = Callable[[TableSpec], EmbeddingTable]
Check = Callable[[MakeTable], None]

WIDE = SliceSpec(name="wide", dim=1, optimizer=SGD(learning_rate=1.0), initializer=Zeros())
VECTOR = SliceSpec(
    name="vector", dim=3, optimizer=Adagrad(learning_rate=0.1), initializer=Uniform(low=-0.05, high=0.05)
)
SPEC = TableSpec(name="checked", slices=(WIDE, VECTOR))
READS_INITIAL = replace(SPEC, missing="initializer")


def keys_of(*keys: int) -> Keys:
    """Keys as a table takes them, (N,)."""
    return np.array(keys, dtype=np.uint64)


def gradients(n: int, value: float = 1.0) -> Floats:
    """Equal gradients for ``SPEC``, (N, D)."""
    return np.full((n, SPEC.dim), value, dtype=np.float32)


def bags_of(*lengths: int, scale: list[float] | None = None) -> Bags:
    """Bags of these lengths, one behind the other."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Bags(offsets=offsets, scale_B=None if scale is None else np.array(scale, dtype=np.float32))


def all_rows(table: EmbeddingTable) -> TableRows:
    """Every row, by ascending key."""
    return table.export_rows(table.keys())


def drained(table: EmbeddingTable, follower: int) -> tuple[list[int], list[int]]:
    """Keys touched and removed since the follower's last drain."""
    changes = table.drain(follower)
    return changes.touched_N.tolist(), changes.removed_N.tolist()


def scanned(table: EmbeddingTable, max_rows: int) -> Iterator[TableRows]:
    """The parts of a whole scan."""
    rows, cursor = table.scan(0, max_rows)
    yield rows
    while cursor:
        rows, cursor = table.scan(cursor, max_rows)
        yield rows


def bits(array: NDArray[Any]) -> bytes:
    """Equal for equal arrays. All NaN are one: which of them an operation makes is up to the machine."""
    if array.dtype == np.float32:
        array = np.where(np.isnan(array), np.float32(np.nan), array)
    return array.tobytes()


def row_bits(rows: TableRows) -> tuple[bytes, ...]:
    """Equal for equal rows in equal order."""
    arrays: tuple[NDArray[Any], ...] = (
        rows.keys_N,
        rows.weights_ND,
        rows.state_NS,
        rows.last_seen_s_N,
        rows.count_N,
    )
    return tuple(bits(array) for array in arrays)


def assert_equal_rows(got: TableRows, want: TableRows) -> None:
    """Raise AssertionError, with a look at what differs, unless all arrays are equal."""
    np.testing.assert_array_equal(got.keys_N, want.keys_N)
    np.testing.assert_array_equal(got.weights_ND, want.weights_ND)
    np.testing.assert_array_equal(got.state_NS, want.state_NS)
    np.testing.assert_array_equal(got.last_seen_s_N, want.last_seen_s_N)
    np.testing.assert_array_equal(got.count_N, want.count_N)
    assert row_bits(got) == row_bits(want), "a zero has another sign"


def assert_equal_tables(got: EmbeddingTable, want: EmbeddingTable) -> None:
    """Raise AssertionError unless both hold the same keys with the same rows."""
    assert_equal_rows(all_rows(got), all_rows(want))
