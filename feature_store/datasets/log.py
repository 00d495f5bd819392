"""What a data set becomes: a log of who was shown what and what they did, in time order.

Axes: N rows of the log, one per shown item.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class InteractionLog:
    """Rows in the order in which they happened. Immutable: any number of readers."""

    user_id_N: EntityIds
    item_id_N: EntityIds
    event_time_ms_N: Ids
    """When the item was shown; never falls."""
    domain_index_N: Ids
    """Place in ``domains``."""
    value_N: NDArray[np.float64]
    """What the feedback said; NaN where there was none."""
    delay_ms_N: Ids
    """From the showing to the feedback; without meaning where there was none."""
    feedback_kind: str
    domains: tuple[str, ...] = NO_DOMAIN
    """Names of the domains; the first one is "", for no domain."""

    def __post_init__(self) -> None:
        lengths = {
            field.name: len(getattr(self, field.name)) for field in fields(self) if field.name[-2:] == "_N"
        }
        if len(set(lengths.values())) != 1:
            raise ShapeError(f"interaction log: want columns of one length, got {lengths}")
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
        *, feedback_kind: str, domains: tuple[str, ...] = NO_DOMAIN, **columns: NDArray[Any]
    ) -> InteractionLog:
        """The log of these columns (named as above, in any order of rows); ties keep their order."""
        order_N = np.argsort(columns["event_time_ms_N"], kind="stable")
        kinds = {"user_id_N": np.uint64, "item_id_N": np.uint64, "value_N": np.float64}
        ordered: dict[str, Any] = {
            name: np.asarray(column)[order_N].astype(kinds.get(name, np.int64))
            for name, column in columns.items()
        }
        return InteractionLog(feedback_kind=feedback_kind, domains=domains, **ordered)

    def rows(self, start: int, stop: int) -> InteractionLog:
        """The rows from ``start`` up to ``stop``, as views."""
        cut: dict[str, Any] = {
            field.name: getattr(self, field.name)[start:stop]
            for field in fields(self)
            if field.name[-2:] == "_N"
        }
        return InteractionLog(feedback_kind=self.feedback_kind, domains=self.domains, **cut)


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

    def domain_index(self, domain: str) -> int:
        """Place of a domain by its name; 0 for one that the log does not have."""
        return self.log.domains.index(domain) if domain in self.log.domains else 0
