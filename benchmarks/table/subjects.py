"""The tables that are timed, and how they are filled."""

from __future__ import annotations

import numpy as np

from recsys.table import (
    LFU,
    SGD,
    Capacity,
    Expiry,
    RowWiseAdagrad,
    SliceSpec,
    TableSpec,
    Uniform,
    Zeros,
)
from recsys.table.native import NativeTable
from table.ids import Ids

CHUNK = 1 << 18


def key_map(capacity: int | None, *, threads: int = 1) -> NativeTable:
    """As little as a table can hold beside its keys: one weight. With a capacity it evicts by LFU."""
    weight = SliceSpec(name="weight", dim=1, optimizer=SGD(learning_rate=0.1), initializer=Zeros())
    spec = TableSpec(
        name="map",
        slices=(weight,),
        capacity=None if capacity is None else Capacity(max_rows=capacity, policy=LFU()),
    )
    return NativeTable(spec, threads)


def embedding_table(dim: int, *, threads: int = 1, max_idle_s: int | None = None) -> NativeTable:
    """Vectors under row-wise Adagrad."""
    vector = SliceSpec(
        name="vector",
        dim=dim,
        optimizer=RowWiseAdagrad(learning_rate=0.05),
        initializer=Uniform(low=-0.05, high=0.05),
    )
    spec = TableSpec(name="vectors", slices=(vector,), expiry=Expiry(max_idle_s=max_idle_s))
    return NativeTable(spec, threads)


def fill(table: NativeTable, keys_K: Ids, *, event_time_s: int = 1) -> None:
    """Give every key a row."""
    for begin in range(0, len(keys_K), CHUNK):
        table.admit(np.ascontiguousarray(keys_K[begin : begin + CHUNK]), event_time_s=event_time_s)
