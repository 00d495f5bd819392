"""A log played back as the messages that a product would have sent: impressions and feedback.

Rows of one user at one moment in one domain are one request. Ids are hashes of what a row says, so
that playing the log again gives the same ids, and a row that the log holds twice becomes a message
sent twice: consumers see what they would see in production, and have to drop it.

Axes: N rows of the log, R requests, K items of one request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.datasets.log import Dataset, InteractionLog
from recsys.errors import ConfigError
from recsys.features import FeatureSchema, RaggedKeys
from recsys.interactions import Feedback, Impression
from recsys.keys import Ids, hash_string

Hashes = NDArray[np.uint64]

REQUEST_SALT = 0x5EED_0001


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackConfig:
    """How a log is cut into requests."""

    items_per_request: int = 20
    """A longer page is cut into several requests; 1 to 255."""
    rows_per_chunk: int = 8192
    """How many rows are encoded at once, at the least; >= 1."""
    policy: str = "logged"
    """What the impressions name as the policy that chose the items."""

    def __post_init__(self) -> None:
        if not 1 <= self.items_per_request <= 255:
            raise ConfigError(f"items_per_request must be 1 to 255, got {self.items_per_request}")
        if self.rows_per_chunk < 1:
            raise ConfigError(f"rows_per_chunk must be >= 1, got {self.rows_per_chunk}")


@dataclass(frozen=True, slots=True)
class RequestGroups:
    """Which rows make up which request: request r holds ``order_N[starts_R[r] : starts_R[r + 1]]``."""

    order_N: Ids
    starts_R: Ids
    """One entry more than there are requests; the last one is N."""
    request_hash_R: Hashes
    event_hash_N: Hashes
    """One per row, in the order of ``order_N``."""


def mixed(columns: list[NDArray[Any]], salt: int) -> Hashes:
    """64-bit hash of each row of some 64-bit columns, (N,): SplitMix64's finaliser over a running sum.

    Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    state_N = np.full(len(columns[0]), salt, dtype=np.uint64)
    for column_N in columns:
        state_N = state_N * np.uint64(0x9E3779B97F4A7C15) + column_N.view(np.uint64) + np.uint64(1)
        state_N = (state_N ^ (state_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state_N = (state_N ^ (state_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state_N ^= state_N >> np.uint64(31)
    return state_N


def _changes(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a row differs from the one before it, (N,); the first one always does."""
    differs_N = np.ones(len(columns[0]), dtype=np.bool_)
    differs_N[1:] = np.logical_or.reduce([column_N[1:] != column_N[:-1] for column_N in columns])
    return differs_N


def _run_starts(begins_N: NDArray[np.bool_]) -> Ids:
    """Where the run that each row belongs to begins, (N,)."""
    return np.maximum.accumulate(np.where(begins_N, np.arange(len(begins_N)), 0))


def group_requests(log: InteractionLog, items_per_request: int) -> RequestGroups:
    """Requests of a log, in time order, a re-sent row after the request that it repeats."""
    moment = (log.domain_index_N, log.user_id_N, log.event_time_ms_N)
    # Repeats: equal rows stand side by side, so a row's distance from its run's start counts them.
    by_item_N = np.lexsort((log.item_id_N, *moment))
    run_N = _run_starts(_changes(*(column_N[by_item_N] for column_N in (log.item_id_N, *moment))))
    repeat_N, original_N = np.empty((2, len(log)), dtype=np.int64)
    repeat_N[by_item_N], original_N[by_item_N] = np.arange(len(log)) - run_N, by_item_N[run_N]
    # Pages: the place among a moment's distinct rows says which page a row is on; a repeat shares it.
    by_repeat_N = np.lexsort((repeat_N, *moment))
    place_N = np.empty(len(log), dtype=np.int64)
    place_N[by_repeat_N] = np.arange(len(log)) - _run_starts(
        _changes(*(column_N[by_repeat_N] for column_N in moment))
    )
    page_N = place_N[original_N] // items_per_request
    order_N = np.lexsort((page_N, repeat_N, *moment))
    request = [column_N[order_N] for column_N in (page_N, *moment)]
    starts_R = np.flatnonzero(_changes(repeat_N[order_N], *request))
    request_hash_N = mixed(request, REQUEST_SALT)
    feedback = [column_N[order_N] for column_N in (log.item_id_N, log.value_N, log.delay_ms_N)]
    # The kind is part of it: a click and a like of one row are two events.
    event_hash_N = mixed([request_hash_N, *feedback], hash_string(0, log.feedback_kind))
    return RequestGroups(order_N, np.append(starts_R, len(log)), request_hash_N[starts_R], event_hash_N)


def play_requests(
    dataset: Dataset, schema: FeatureSchema, config: PlaybackConfig | None = None
) -> Iterator[tuple[Impression, list[Feedback]]]:
    """Each request with the feedback to it, impressions in time order, features as served.

    Scores and propensities are NaN: these logs do not tell them. A piece of feedback carries its own,
    later time; who sends it decides whether it overtakes later impressions.
    """
    config = config or PlaybackConfig()
    groups = group_requests(dataset.log, config.items_per_request)
    n_requests = len(groups.request_hash_R)
    first = 0
    while first < n_requests:
        wanted = groups.starts_R[first] + config.rows_per_chunk
        last = min(int(np.searchsorted(groups.starts_R, wanted)), n_requests)
        yield from _messages(dataset, schema, config, groups, range(first, last))
        first = last


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some rows of a log in the order of their requests, as plain numbers: faster one by one."""

    user: list[int]
    item: list[int]
    domain: list[int]
    time_ms: list[int]
    value: list[float]
    feedback_time_ms: list[int]
    event_id: list[int]

    def feedback(self, request_id: str, kind: str, start: int, stop: int) -> list[Feedback]:
        """What was done with the items of one request; a value of NaN is nothing."""
        return [
            Feedback(
                event_id=self.event_id[row],
                request_id=request_id,
                user_id=self.user[row],
                item_id=self.item[row],
                kind=kind,
                value=self.value[row],
                event_time_ms=self.feedback_time_ms[row],
            )
            for row in range(start, stop)
            if not math.isnan(self.value[row])
        ]


def _read_rows(log: InteractionLog, rows_N: Ids, event_hash_N: Hashes) -> _Rows:
    """The rows asked for, in that order."""
    time_N = log.event_time_ms_N[rows_N]
    return _Rows(
        user=log.user_id_N[rows_N].tolist(),
        item=log.item_id_N[rows_N].tolist(),
        domain=log.domain_index_N[rows_N].tolist(),
        time_ms=time_N.tolist(),
        value=log.value_N[rows_N].tolist(),
        feedback_time_ms=(time_N + log.delay_ms_N[rows_N]).tolist(),
        event_id=event_hash_N.tolist(),
    )


def _messages(
    dataset: Dataset, schema: FeatureSchema, config: PlaybackConfig, groups: RequestGroups, requests: range
) -> Iterator[tuple[Impression, list[Feedback]]]:
    """The messages of some requests, encoded together."""
    log, (begin, end) = dataset.log, groups.starts_R[[requests.start, requests.stop]]
    rows_N = groups.order_N[begin:end]
    rows = _read_rows(log, rows_N, groups.event_hash_N[begin:end])
    item_N = log.item_id_N[rows_N]
    columns = dataset.columns(
        log.user_id_N[rows_N], item_N, log.domain_index_N[rows_N], log.event_time_ms_N[rows_N]
    )
    keys = schema.encode(columns, len(rows_N))
    key_offsets = keys.offsets.tolist()
    unknown_K = np.full(config.items_per_request, np.nan, dtype=np.float32)
    unknown_K.flags.writeable = False
    unknown = [unknown_K[:length] for length in range(config.items_per_request + 1)]
    starts = (groups.starts_R[requests.start : requests.stop + 1] - begin).tolist()
    hashes = groups.request_hash_R[requests.start : requests.stop].tolist()
    for request_hash, (start, stop) in zip(hashes, pairwise(starts), strict=True):
        request_id = f"{request_hash:016x}"
        impression = Impression(
            request_id=request_id,
            user_id=rows.user[start],
            event_time_ms=rows.time_ms[start],
            domain=log.domains[rows.domain[start]],
            policy=config.policy,
            schema_fingerprint=schema.fingerprint,
            item_ids_K=item_N[start:stop],
            scores_K=unknown[stop - start],
            propensities_K=unknown[stop - start],
            keys=RaggedKeys(keys.keys_T[key_offsets[start] : key_offsets[stop]], keys.lengths_NF[start:stop]),
        )
        yield impression, rows.feedback(request_id, log.feedback_kind, start, stop)
