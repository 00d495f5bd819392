"""What is known about users and items, and the columns that one request offers to the features.

Training and serving both build their columns here, so a key means the same on either side.
In every coded column 0 says "unknown"; an id that was never seen reads as 0 and as empty lists.

Axes: E entities of one kind, R rows kept (the unknown one and E more), N rows asked for, T values
of a multi-valued column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.features import Column, Ragged
from recsys.keys import Ids

EntityIds = NDArray[np.uint64]

HOUR_MS = 3_600_000
UNKNOWN_ROW = 0


@dataclass(frozen=True, slots=True)
class _ListRows:
    """A multi-valued column with its starts worked out once: a request must not pay for all rows."""

    values_T: Ids
    starts_R: Ids
    lengths_R: Ids

    @staticmethod
    def of(column: Ragged) -> _ListRows:
        lengths_R = np.concatenate([[0], column.lengths_N]).astype(np.int64)
        return _ListRows(np.asarray(column.values_T, np.int64), np.cumsum(lengths_R) - lengths_R, lengths_R)

    def take(self, rows_N: Ids) -> Ragged:
        lengths_N = self.lengths_R[rows_N]
        skipped_N = np.cumsum(lengths_N) - lengths_N
        source_T = np.repeat(self.starts_R[rows_N] - skipped_N, lengths_N) + np.arange(lengths_N.sum())
        return Ragged(self.values_T[source_T], lengths_N)


class EntityColumns:
    """Static columns of one kind of entity, by 64-bit id. Immutable: any number of readers."""

    def __init__(self, ids_E: NDArray[Any], columns: Mapping[str, Column]) -> None:
        """``columns`` hold one value or one list per id, in the order of ``ids_E``.

        Raises ShapeError when an id occurs twice or a column has another length.
        """
        ids_E = np.asarray(ids_E).astype(np.uint64)
        order_E = np.argsort(ids_E, kind="stable")
        self._sorted_ids = ids_E[order_E]
        if (self._sorted_ids[1:] == self._sorted_ids[:-1]).any():
            raise ShapeError("entity columns: an id occurs twice; want one row per id")
        self._row_of_sorted = order_E + 1
        self._values: dict[str, Ids] = {}
        self._lists: dict[str, _ListRows] = {}
        for name, column in columns.items():
            length = len(column.lengths_N) if isinstance(column, Ragged) else len(column)
            if length != len(ids_E):
                raise ShapeError(f"entity column {name!r}: got {length} rows, want {len(ids_E)}, one per id")
            if isinstance(column, Ragged):
                self._lists[name] = _ListRows.of(column)
            else:
                self._values[name] = np.concatenate([[0], column]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._sorted_ids)

    @property
    def ids(self) -> EntityIds:
        """Every id that is known, ascending, (E,)."""
        return self._sorted_ids

    @property
    def names(self) -> tuple[str, ...]:
        """Column names, without a prefix."""
        return (*self._values, *self._lists)

    def rows(self, ids_N: NDArray[Any]) -> Ids:
        """Row of each id, (N,): 0 for an id that is not known."""
        ids_N = np.asarray(ids_N).astype(np.uint64)
        if not len(self._sorted_ids):
            return np.full(len(ids_N), UNKNOWN_ROW, dtype=np.int64)
        place_N = np.minimum(np.searchsorted(self._sorted_ids, ids_N), len(self._sorted_ids) - 1)
        return np.where(self._sorted_ids[place_N] == ids_N, self._row_of_sorted[place_N], UNKNOWN_ROW)

    def at(self, name: str, rows_N: Ids) -> Column:
        """One column at rows given by ``rows``. Raises KeyError when there is no such column."""
        return self.lists(name, rows_N) if name in self._lists else self.values(name, rows_N)

    def values(self, name: str, rows_N: Ids) -> Ids:
        """One single-valued column at rows given by ``rows``, (N,). Raises KeyError if there is none."""
        return self._values[name][rows_N]

    def lists(self, name: str, rows_N: Ids) -> Ragged:
        """One multi-valued column at rows given by ``rows``. Raises KeyError if there is none."""
        return self._lists[name].take(rows_N)

    def take(self, ids_N: NDArray[Any], *, prefix: str) -> dict[str, Column]:
        """Every column at these ids, named ``prefix.column``."""
        rows_N = self.rows(ids_N)
        return {f"{prefix}.{name}": self.at(name, rows_N) for name in self.names}


class _ColumnSource(Protocol):
    def __call__(self) -> Column: ...


def _given(column: Column) -> Column:
    return column


class RequestColumns(Mapping[str, Column]):
    """Columns by name, each made when it is first read. For one request or chunk, one thread."""

    def __init__(self, sources: Mapping[str, _ColumnSource]) -> None:
        self._sources = sources
        self._made: dict[str, Column] = {}

    def replaced(self, columns: Mapping[str, Column]) -> RequestColumns:
        """The same columns with these in place of those of their names."""
        return RequestColumns({**self._sources, **{name: partial(_given, c) for name, c in columns.items()}})

    def __getitem__(self, name: str) -> Column:
        if name not in self._made:
            self._made[name] = self._sources[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRows:
    """Who is asked about what, where and when: N rows. An axis of length 1 stands for all rows."""

    user_ids_N: NDArray[Any]
    item_ids_N: NDArray[Any]
    domain_index_N: NDArray[Any]
    """Place of each row's domain in the data set's list of domains; 0 is "no domain"."""
    event_time_ms_N: NDArray[Any]
    utc_offset_hours: int = 0
    """Local time minus UTC, for the columns of the clock."""


def request_columns(users: EntityColumns, items: EntityColumns, rows: RequestRows) -> RequestColumns:
    """Everything that a feature may name: ``user.*``, ``item.*`` and ``request.*``.

    Ids themselves are ``user.id`` and ``item.id``, also for an unknown entity. The local clock gives
    ``request.hour`` (0 to 23), ``request.weekday`` (0 is Monday), ``request.day`` and ``request.week``
    (since 1970). Where items have an ``upload_day`` there is ``request.item_age``: 1 + days since
    then, within 1 to 255, and 0 where the day is unknown. Raises ShapeError when the axes do not fit.
    """
    axes = (rows.user_ids_N, rows.item_ids_N, rows.domain_index_N, rows.event_time_ms_N)
    try:
        user_N, item_N, domain_N, time_N = np.broadcast_arrays(*axes)
    except ValueError as error:
        raise ShapeError(
            f"a request's axes must be of one length or 1, got {[len(a) for a in axes]}"
        ) from error
    sources: dict[str, _ColumnSource] = {}
    for prefix, entities, ids_N in (("user", users, user_N), ("item", items, item_N)):
        rows_N = entities.rows(ids_N)
        for name in entities.names:
            sources[f"{prefix}.{name}"] = partial(entities.at, name, rows_N)
        sources[f"{prefix}.id"] = partial(ids_N.astype, np.int64)
    hours_N = time_N // HOUR_MS + rows.utc_offset_hours
    days_N = hours_N // 24
    sources["request.domain"] = partial(domain_N.astype, np.int64)
    sources["request.hour"] = partial(np.mod, hours_N, 24)
    # 1 January 1970 was a Thursday.
    sources["request.weekday"] = partial(np.mod, days_N + 3, 7)
    sources["request.day"] = partial(np.asarray, days_N)
    sources["request.week"] = partial(np.floor_divide, days_N + 3, 7)
    if "upload_day" in items.names:
        sources["request.item_age"] = partial(_item_age, items, item_N, days_N)
    return RequestColumns(sources)


def _item_age(items: EntityColumns, item_ids_N: EntityIds, days_N: Ids) -> Ids:
    """1 + days between an item's upload and the request, 1 to 255, (N,); 0 where it is unknown."""
    upload_day_N = items.values("upload_day", items.rows(item_ids_N))
    return np.where(upload_day_N > 0, np.clip(days_N - upload_day_N + 1, 1, 255), 0)
