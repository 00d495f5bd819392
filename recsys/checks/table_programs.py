"""Random programs of table calls, and the check that they end as on the reference table.

A program is a list of (method of ``_Run``, arguments). It is played on both tables; after every
call and at the end, what can be seen of them must be equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recsys.table.reference import ReferenceTable
from recsys.table.spec import SGD, Adagrad, Constant, RowWiseAdagrad, SliceSpec, TableSpec, Uniform
from recsys.table.table import EmbeddingTable, Floats, Keys, TableRows

# Few keys, so that calls meet on them; with equal low bits, and the two that often mark emptiness.
_KEYS = [0, 1, 2, 3, 1 << 32, 1 << 63, (1 << 63) + 1, (1 << 64) - 1]
_SLICES = (
    SliceSpec(name="step", dim=1, optimizer=SGD(learning_rate=0.3), initializer=Constant(value=0.7)),
    SliceSpec(
        name="vector",
        dim=5,
        optimizer=Adagrad(learning_rate=0.1, initial_accumulator=0.0),
        initializer=Uniform(low=-0.05, high=0.05),
    ),
    SliceSpec(
        name="row",
        dim=3,
        optimizer=RowWiseAdagrad(learning_rate=0.1),
        initializer=Uniform(low=0.0, high=1.0),
    ),
)
_DIM = 9
_Call = tuple[str, tuple[Any, ...]]


def _keys(max_size: int) -> st.SearchStrategy[Keys]:
    chosen = st.lists(st.sampled_from(_KEYS), max_size=max_size)
    return chosen.map(lambda keys: np.array(keys, dtype=np.uint64))


def _rows_for(keys_N: Keys) -> st.SearchStrategy[Floats]:
    return arrays.arrays(np.float32, (len(keys_N), _DIM), elements=st.floats(-8, 8, width=32))


_KEYS_AND_ROWS = _keys(8).flatmap(lambda keys_N: st.tuples(st.just(keys_N), _rows_for(keys_N)))
_CALLS: st.SearchStrategy[_Call] = st.one_of(
    st.tuples(st.just("learn"), st.tuples(_KEYS_AND_ROWS, st.integers(0, 100))),
    st.tuples(st.just("assign"), st.tuples(_KEYS_AND_ROWS)),
    st.tuples(st.just("erase"), st.tuples(_keys(3))),
    st.tuples(st.sampled_from(["lookup", "contains"]), st.tuples(_keys(8))),
    st.tuples(st.sampled_from(["drain", "snapshot", "restore"]), st.just(())),
)
# A list of any size would have five calls on average, too few for rows to be recycled.
_PROGRAMS = st.integers(0, 40).flatmap(lambda size: st.lists(_CALLS, min_size=size, max_size=size))


class _Run:
    """One table under a program, and the last snapshot that was taken of it. One thread only."""

    def __init__(self, table: EmbeddingTable) -> None:
        self._table = table
        self._snapshot: TableRows | None = None

    def learn(self, batch: tuple[Keys, Floats], event_time_s: int) -> None:
        self._table.learn(*batch, event_time_s=event_time_s)

    def assign(self, batch: tuple[Keys, Floats]) -> None:
        self._table.assign(*batch)

    def erase(self, keys_N: Keys) -> int:
        return self._table.erase(keys_N)

    def lookup(self, keys_N: Keys) -> bytes:
        return self._table.lookup(keys_N).tobytes()

    def contains(self, keys_N: Keys) -> list[bool]:
        found: list[bool] = self._table.contains(keys_N).tolist()
        return found

    def drain(self) -> list[int]:
        touched: list[int] = self._table.drain_touched().tolist()
        return touched

    def snapshot(self) -> tuple[bytes, ...]:
        self._snapshot = self._table.export_rows(self._table.keys())
        rows = self._snapshot
        arrays_of_rows = (rows.keys_N, rows.weights_ND, rows.state_NS, rows.last_seen_s_N)
        return tuple(array.tobytes() for array in arrays_of_rows)

    def restore(self) -> int:
        if self._snapshot is not None:
            self._table.clear()
            self._table.import_rows(self._snapshot)
        return len(self._table)


def check_any_interleaving_equals_the_reference(make_table: Callable[[TableSpec], EmbeddingTable]) -> None:
    """Any order of learn, assign, erase, lookup, drain, snapshot and restore gives the reference's bits."""

    @given(program=_PROGRAMS, missing=st.sampled_from(["zeros", "initializer"]))
    @settings(max_examples=100, deadline=None, database=None)
    def equal_after(program: list[_Call], missing: Literal["zeros", "initializer"]) -> None:
        spec = TableSpec(name="program", slices=_SLICES, seed=3, missing=missing)
        run, twin = _Run(make_table(spec)), _Run(ReferenceTable(spec))
        for method, arguments in [*program, ("snapshot", ()), ("drain", ())]:
            assert getattr(run, method)(*arguments) == getattr(twin, method)(*arguments), method

    equal_after()
