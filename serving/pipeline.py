"""From a checked request to a ranked answer, as plain functions: score, rerank, explore.

Axes: N candidates, K items returned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.features import RaggedKeys
from serving.errors import InvalidRequest

Floats = NDArray[np.float32]
ItemIds = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLimits:
    """What a request may ask for."""

    domains: tuple[str, ...]
    """Known domains; the first is meant where a request names none."""
    is_open: bool = False
    """Whether a request may name another domain too, which is then one that no model has seen."""
    context: frozenset[str] = frozenset()
    """Names of context numbers that the recipe's features read."""
    max_candidates: int = 1000
    """More are refused; > 0."""

    def __post_init__(self) -> None:
        if not self.domains or self.max_candidates < 1:
            raise ConfigError("want at least one domain and max_candidates > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankQuery:
    """A request that has passed its checks."""

    user_id: int
    domain: str
    item_ids_N: ItemIds
    context: Mapping[str, float]
    request_time_ms: int
    top_k: int


class FeatureSource(Protocol):
    """Features of candidates, the same way at serving time and in the logs that models learn from."""

    def keys(self, query: RankQuery) -> RaggedKeys:
        """One row of feature keys per candidate, (N,)."""


def checked(query: RankQuery, limits: RankLimits) -> RankQuery:
    """The query with its defaults filled in. Raises InvalidRequest with a sentence for its author."""
    n = len(query.item_ids_N)
    if n == 0:
        raise InvalidRequest("item_ids is empty; send at least one candidate")
    if n > limits.max_candidates:
        raise InvalidRequest(
            f"item_ids has {n} candidates, at most {limits.max_candidates} are ranked; send fewer"
        )
    if len(np.unique(query.item_ids_N)) != n:
        raise InvalidRequest("item_ids names an item twice; send each candidate once")
    domain = query.domain or limits.domains[0]
    if domain not in limits.domains and not limits.is_open:
        raise InvalidRequest(f"domain {domain!r} is unknown; use one of {', '.join(limits.domains)}")
    for name, value in query.context.items():
        if name not in limits.context:
            known = ", ".join(sorted(limits.context)) or "none"
            raise InvalidRequest(f"context {name!r} is unknown; this recipe reads: {known}")
        if not math.isfinite(value):
            raise InvalidRequest(f"context {name!r} is {value}; features must be finite numbers")
    if query.request_time_ms < 0:
        raise InvalidRequest(
            f"request_time_ms is {query.request_time_ms}; want Unix milliseconds, or 0 for now"
        )
    return RankQuery(
        user_id=query.user_id,
        domain=domain,
        item_ids_N=query.item_ids_N,
        context=query.context,
        request_time_ms=query.request_time_ms,
        top_k=min(query.top_k or n, n),
    )


def best_first(score_N: Floats, top_k: int) -> NDArray[np.int64]:
    """Places of the ``top_k`` highest scores, best first, (K,); equal scores keep the caller's order."""
    return np.argsort(-score_N, kind="stable")[:top_k]
