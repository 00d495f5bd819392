"""What every table promises about calls that it must refuse: a typed error, and nothing changed.

Axes: N keys of one call, B bags, D weights of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys.checks.table_specimens import SPEC, MakeTable, all_rows, bags_of, gradients, keys_of, row_bits
from recsys.errors import ConfigError, ShapeError
from recsys.table import Bags, Capacity, EmbeddingTable
from recsys.table.table import TableRows

# Each is not what a call with two keys, or two bags, wants.
_WRONG_KEYS: list[Any] = [
    np.arange(2),
    np.arange(2, dtype=np.uint32),
    np.arange(4, dtype=np.uint64)[::2],
    np.zeros((1, 2), np.uint64),
    [1, 2],
]
_WRONG_ROWS: list[Any] = [
    gradients(3),
    gradients(2)[:, :3],
    gradients(2).astype(np.float64),
    np.asfortranarray(gradients(2)),
    gradients(2).ravel(),
    gradients(2).tolist(),
]
_WRONG_TIMES: list[Any] = [-1, 2**32, 1.5, "1", None]


def _wrong_bags() -> Iterator[Bags]:
    """None of these cuts two keys into two bags."""
    for offsets in ([0, 1], [0, 1, 3], [1, 1, 2], [0, 2, 1, 2], [-1, 0, 2], []):
        yield Bags(offsets=np.array(offsets, dtype=np.int64))
    yield Bags(offsets=np.array([0, 1, 2], dtype=np.int32))
    yield Bags(offsets=np.array([[0, 1, 2]], dtype=np.int64))
    yield Bags(offsets=np.array([0, 9, 1, 9, 2], dtype=np.int64)[::2])
    for scale_B in (np.ones(3, np.float32), np.ones(2), np.ones((2, 1), np.float32)):
        yield Bags(offsets=np.array([0, 1, 2], dtype=np.int64), scale_B=scale_B)  # type: ignore[arg-type]


class _Unchanged:
    """A table in use, and that it is as it was. One thread only."""

    def __init__(self, make_table: MakeTable) -> None:
        self.table = make_table(SPEC)
        self.table.learn(keys_of(1, 5), gradients(2), event_time_s=7)
        self._follower = self.table.follow()
        self._before = self._seen()

    def check(self) -> None:
        assert self._seen() == self._before
        changes = self.table.drain(self._follower)
        assert not len(changes.touched_N)
        assert not len(changes.removed_N)

    def _seen(self) -> tuple[Any, ...]:
        table: EmbeddingTable = self.table
        return row_bits(all_rows(table)), table.steps, table.clock_s, table.counters()


def check_keys_of_another_kind_are_refused(make_table: MakeTable) -> None:
    used = _Unchanged(make_table)
    table = used.table
    for keys_N in _WRONG_KEYS:
        for call in (table.lookup, table.contains, table.erase, table.export_rows):
            with pytest.raises(ShapeError, match="keys must be"):
                call(keys_N)
        with pytest.raises(ShapeError, match="keys must be"):
            table.lookup_bags(keys_N, bags_of(1, 1))
        with pytest.raises(ShapeError, match="keys must be"):
            table.learn(keys_N, gradients(2), event_time_s=9)
        with pytest.raises(ShapeError, match="keys must be"):
            table.learn_bags(keys_N, bags_of(1, 1), gradients(2), event_time_s=9)
        with pytest.raises(ShapeError, match="keys must be"):
            table.assign(keys_N, gradients(2))
    used.check()


def check_rows_of_another_kind_are_refused(make_table: MakeTable) -> None:
    used = _Unchanged(make_table)
    table = used.table
    for rows_ND in _WRONG_ROWS:
        with pytest.raises(ShapeError, match="grads_ND must be"):
            table.learn(keys_of(1, 2), rows_ND, event_time_s=9)
        with pytest.raises(ShapeError, match="grads_BD must be"):
            table.learn_bags(keys_of(1, 2, 3), bags_of(2, 1), rows_ND, event_time_s=9)
        with pytest.raises(ShapeError, match="weights_ND must be"):
            table.assign(keys_of(1, 2), rows_ND)
    used.check()


def check_bags_that_do_not_cut_the_keys_are_refused(make_table: MakeTable) -> None:
    used = _Unchanged(make_table)
    for bags in _wrong_bags():
        with pytest.raises(ShapeError):
            used.table.lookup_bags(keys_of(1, 2), bags)
        with pytest.raises(ShapeError):
            used.table.learn_bags(keys_of(1, 2), bags, gradients(2), event_time_s=9)
    used.check()


def check_imported_rows_must_fit_the_table(make_table: MakeTable) -> None:
    used = _Unchanged(make_table)
    fitting = replace(all_rows(used.table), weights_ND=gradients(2, 9.0))
    wrong: dict[str, list[Any]] = {
        "keys_N": [keys_of(1, 2, 3), *_WRONG_KEYS],
        "weights_ND": _WRONG_ROWS,
        "state_NS": [np.ones((2, 4), np.float32), np.ones((2, 3))],
        "last_seen_s_N": [np.ones(2, np.int64), np.ones(3, np.uint32)],
        "count_N": [np.ones(2, np.int64), np.ones((2, 1), np.uint32)],
    }
    for name, arrays in wrong.items():
        for array in arrays:
            rows: TableRows = replace(fitting, **{name: array})
            with pytest.raises(ShapeError):
                used.table.import_rows(rows)
    used.check()


def check_event_times_beyond_32_bits_are_refused(make_table: MakeTable) -> None:
    used = _Unchanged(make_table)
    for event_time_s in _WRONG_TIMES:
        with pytest.raises(ConfigError, match="event_time_s must be"):
            used.table.learn(keys_of(1), gradients(1), event_time_s=event_time_s)
        with pytest.raises(ConfigError, match="event_time_s must be"):
            used.table.learn_bags(keys_of(1), bags_of(1), gradients(1), event_time_s=event_time_s)
    used.check()


def check_wrong_calls_of_admit_and_row_numbers_are_refused(make_table: MakeTable) -> None:
    used = _Unchanged(make_table)
    for keys_N in _WRONG_KEYS:
        with pytest.raises(ShapeError, match="keys must be"):
            used.table.row_numbers(keys_N)
        with pytest.raises(ShapeError, match="keys must be"):
            used.table.admit(keys_N, event_time_s=9)
    for event_time_s in _WRONG_TIMES:
        with pytest.raises(ConfigError, match="event_time_s must be"):
            used.table.admit(keys_of(1), event_time_s=event_time_s)
    used.check()


def check_a_cap_too_small_for_one_row_is_refused(make_table: MakeTable) -> None:
    with pytest.raises(ConfigError, match="does not hold one row"):
        make_table(replace(SPEC, capacity=Capacity(max_bytes=SPEC.row_bytes)))


REFUSALS = (
    check_keys_of_another_kind_are_refused,
    check_rows_of_another_kind_are_refused,
    check_bags_that_do_not_cut_the_keys_are_refused,
    check_imported_rows_must_fit_the_table,
    check_event_times_beyond_32_bits_are_refused,
)
"""For any table."""

NUMBERED_REFUSALS = (
    check_wrong_calls_of_admit_and_row_numbers_are_refused,
    check_a_cap_too_small_for_one_row_is_refused,
)
"""For tables that number their rows as the reference does."""
