"""What a data set becomes: a log of who was shown what and what they did, in time order.

Axes: N rows of the log, one per shown item; K kinds of feedback; M rows that differ.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.entities import EntityColumns, EntityIds, RequestColumns, RequestRows, request_columns
from recsys.errors import ConfigError, ShapeError
from recsys.keys import Ids

NO_DOMAIN = ("",)


def changed_rows(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a row differs from the one before it, (N,); the first one always does."""
    differs_N = np.ones(len(columns[0]), dtype=np.bool_)
    differs_N[1:] = np.logical_or.reduce([column_N[1:] != column_N[:-1] for column_N in columns])
    return differs_N


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionLog:
    """Rows in the order in which they happened. Immutable: any number of readers."""

    user_id_N: EntityIds
    item_id_N: EntityIds
    event_time_ms_N: Ids
    """When the item was shown; never falls."""
    domain_index_N: Ids
    """Place in ``domains``."""
    value_NK: NDArray[np.float64]
    """What the feedback of each kind said; NaN where there was none of that kind."""
    delay_ms_N: Ids
    """From the showing to the feedback, of whatever kind; without meaning where there was none."""
    feedback_kinds: tuple[str, ...]
    """K of them, such as "click"."""
    domains: tuple[str, ...] = NO_DOMAIN
    """Names of the domains; the first one is "", for no domain."""

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _columns_by_row()}
        if len(set(lengths.values())) != 1:
            raise ShapeError(f"interaction log: want columns of one length, got {lengths}")
        if not self.feedback_kinds or len(set(self.feedback_kinds)) != len(self.feedback_kinds):
            raise ConfigError(f"interaction log: want one or more different kinds, got {self.feedback_kinds}")
        if self.value_NK.shape != (len(self), len(self.feedback_kinds)):
            raise ShapeError(
                f"interaction log: want a value for each of the kinds {self.feedback_kinds}, "
                f"got value_NK of shape {self.value_NK.shape} for {len(self)} rows"
            )
        if (np.diff(self.event_time_ms_N) < 0).any():
            raise ShapeError("interaction log: rows are not in time order; build it with in_time_order")
        if self.domains[:1] != NO_DOMAIN:
            raise ConfigError(f"interaction log: the first domain must be '', got {self.domains}")
        if len(self) and not 0 <= self.domain_index_N.min() <= self.domain_index_N.max() < len(self.domains):
            raise ShapeError(f"interaction log: a domain index is not in 0 to {len(self.domains) - 1}")

    def __len__(self) -> int:
        return len(self.user_id_N)

    @staticmethod
    def in_time_order(
        *, feedback_kinds: tuple[str, ...], domains: tuple[str, ...] = NO_DOMAIN, **columns: NDArray[Any]
    ) -> InteractionLog:
        """The log of these columns (named as above, in any order of rows); ties keep their order."""
        order_N = np.argsort(columns["event_time_ms_N"], kind="stable")
        kinds = {"user_id_N": np.uint64, "item_id_N": np.uint64, "value_NK": np.float64}
        ordered: dict[str, Any] = {
            name: np.asarray(column)[order_N].astype(kinds.get(name, np.int64))
            for name, column in columns.items()
        }
        return InteractionLog(feedback_kinds=feedback_kinds, domains=domains, **ordered)

    def rows(self, start: int, stop: int) -> InteractionLog:
        """The rows from ``start`` up to ``stop``, as views."""
        cut: dict[str, Any] = {name: getattr(self, name)[start:stop] for name in _columns_by_row()}
        return InteractionLog(feedback_kinds=self.feedback_kinds, domains=self.domains, **cut)

    def distinct_rows(self) -> Ids:
        """The first of the rows of one user, item, moment and domain, in time order, (M,).

        The others are the same showing, sent again.
        """
        showing = (self.item_id_N, self.domain_index_N, self.user_id_N, self.event_time_ms_N)
        # Stable: of equal rows, the one that came first stays first.
        order_N = np.lexsort(showing)
        return np.sort(order_N[changed_rows(*(column_N[order_N] for column_N in showing))])


def _columns_by_row() -> list[str]:
    """Names of the columns with an entry per row."""
    return [field.name for field in fields(InteractionLog) if field.name.endswith(("_N", "_NK"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A log with what is known about its users and items. Immutable: any number of readers."""

    name: str
    log: InteractionLog
    users: EntityColumns
    items: EntityColumns
    utc_offset_hours: int = 0
    """Local time of the people in the log, minus UTC."""

    def columns(
        self, user_ids_N: EntityIds, item_ids_N: EntityIds, domain_index_N: Ids, event_time_ms_N: Ids
    ) -> RequestColumns:
        """Columns of N rows, the same when learning and when serving; length 1 stands for all rows."""
        rows = RequestRows(
            user_ids_N=user_ids_N,
            item_ids_N=item_ids_N,
            domain_index_N=domain_index_N,
            event_time_ms_N=event_time_ms_N,
            utc_offset_hours=self.utc_offset_hours,
        )
        return request_columns(self.users, self.items, rows)

    def columns_at(self, rows_N: Ids) -> RequestColumns:
        """Columns of N rows of the log, given by their places."""
        log = self.log
        return self.columns(
            log.user_id_N[rows_N],
            log.item_id_N[rows_N],
            log.domain_index_N[rows_N],
            log.event_time_ms_N[rows_N],
        )

    def domain_index(self, domain: str) -> int:
        """Place of a domain by its name; 0 for one that the log does not have."""
        return self.log.domains.index(domain) if domain in self.log.domains else 0
