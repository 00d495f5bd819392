"""A log played back as the messages that a product would have sent: impressions and feedback.

Rows of one user at one moment in one domain are one request. Ids are hashes of what a row says, so
that playing the log again gives the same ids, and a row that the log holds twice becomes a message
sent twice: consumers see what they would see in production, and have to drop it.

Axes: N rows of the log, K kinds of feedback, R requests, I items of one request, D things done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.datasets.log import Dataset, InteractionLog, changed_rows
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
    event_hash_NK: Hashes
    """One per row and kind of feedback, in the order of ``order_N``."""


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


def _run_starts(begins_N: NDArray[np.bool_]) -> Ids:
    """Where the run that each row belongs to begins, (N,)."""
    return np.maximum.accumulate(np.where(begins_N, np.arange(len(begins_N)), 0))


def group_requests(log: InteractionLog, items_per_request: int) -> RequestGroups:
    """Requests of a log, in time order, a re-sent row after the request that it repeats."""
    moment = (log.domain_index_N, log.user_id_N, log.event_time_ms_N)
    # Repeats: equal rows stand side by side, so a row's distance from its run's start counts them.
    by_item_N = np.lexsort((log.item_id_N, *moment))
    run_N = _run_starts(changed_rows(*(column_N[by_item_N] for column_N in (log.item_id_N, *moment))))
    repeat_N, original_N = np.empty((2, len(log)), dtype=np.int64)
    repeat_N[by_item_N], original_N[by_item_N] = np.arange(len(log)) - run_N, by_item_N[run_N]
    # Pages: the place among a moment's distinct rows says which page a row is on; a repeat shares it.
    by_repeat_N = np.lexsort((repeat_N, *moment))
    place_N = np.empty(len(log), dtype=np.int64)
    place_N[by_repeat_N] = np.arange(len(log)) - _run_starts(
        changed_rows(*(column_N[by_repeat_N] for column_N in moment))
    )
    page_N = place_N[original_N] // items_per_request
    order_N = np.lexsort((page_N, repeat_N, *moment))
    request = [column_N[order_N] for column_N in (page_N, *moment)]
    starts_R = np.flatnonzero(changed_rows(repeat_N[order_N], *request))
    request_hash_N = mixed(request, REQUEST_SALT)
    item_N, value_NK, delay_N = (rows[order_N] for rows in (log.item_id_N, log.value_NK, log.delay_ms_N))
    event_hash_NK = np.empty(value_NK.shape, dtype=np.uint64)
    # The kind is part of it: a click and a like of one row are two events.
    for place, kind in enumerate(log.feedback_kinds):
        done = [request_hash_N, item_N, value_NK[:, place], delay_N]
        event_hash_NK[:, place] = mixed(done, hash_string(0, kind))
    return RequestGroups(order_N, np.append(starts_R, len(log)), request_hash_N[starts_R], event_hash_NK)


def play_requests(
    dataset: Dataset, schema: FeatureSchema, config: PlaybackConfig | None = None
) -> Iterator[tuple[Impression, list[Feedback]]]:
    """Each request with the feedback to it, impressions in time order, features as served.

    Scores and propensities are NaN: these logs do not tell them. Feedback comes item by item, to one item
    in the order of the log's kinds. A piece of it carries its own, later time; who sends it decides
    whether it overtakes later impressions.
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
class _Done:
    """What was done with the items of some requests, in order, as plain numbers: faster one by one."""

    starts: list[int]
    """Where each request's part begins, and the end."""
    kind: list[str]
    user: list[int]
    item: list[int]
    value: list[float]
    time_ms: list[int]
    event_id: list[int]

    def feedback(self, request_id: str, start: int, stop: int) -> list[Feedback]:
        """The answers to one request, whose part they are."""
        return [
            Feedback(
                event_id=self.event_id[place],
                request_id=request_id,
                user_id=self.user[place],
                item_id=self.item[place],
                kind=self.kind[place],
                value=self.value[place],
                event_time_ms=self.time_ms[place],
            )
            for place in range(start, stop)
        ]


def _done(log: InteractionLog, rows_N: Ids, starts_R: Ids, event_hash_NK: Hashes) -> _Done:
    """Every value that is given at these rows of requests that start at ``starts_R``; NaN is none."""
    value_NK = log.value_NK[rows_N]
    row_D, kind_D = np.nonzero(~np.isnan(value_NK))
    log_row_D = rows_N[row_D]
    return _Done(
        starts=np.searchsorted(row_D, starts_R).tolist(),
        kind=[log.feedback_kinds[place] for place in kind_D.tolist()],
        user=log.user_id_N[log_row_D].tolist(),
        item=log.item_id_N[log_row_D].tolist(),
        value=value_NK[row_D, kind_D].tolist(),
        time_ms=(log.event_time_ms_N[log_row_D] + log.delay_ms_N[log_row_D]).tolist(),
        event_id=event_hash_NK[row_D, kind_D].tolist(),
    )


def _messages(
    dataset: Dataset, schema: FeatureSchema, config: PlaybackConfig, groups: RequestGroups, requests: range
) -> Iterator[tuple[Impression, list[Feedback]]]:
    """The messages of some requests, encoded together."""
    log, (begin, end) = dataset.log, groups.starts_R[[requests.start, requests.stop]]
    rows_N = groups.order_N[begin:end]
    keys = schema.encode(dataset.columns_at(rows_N), len(rows_N))
    key_offsets = keys.offsets.tolist()
    unknown_I = np.full(config.items_per_request, np.nan, dtype=np.float32)
    unknown_I.flags.writeable = False
    unknown = [unknown_I[:length] for length in range(config.items_per_request + 1)]
    starts_R = groups.starts_R[requests.start : requests.stop + 1] - begin
    done = _done(log, rows_N, starts_R, groups.event_hash_NK[begin:end])
    item_N, first_R = log.item_id_N[rows_N], rows_N[starts_R[:-1]]
    heads = zip(
        groups.request_hash_R[requests.start : requests.stop].tolist(),
        log.user_id_N[first_R].tolist(),
        log.event_time_ms_N[first_R].tolist(),
        log.domain_index_N[first_R].tolist(),
        strict=True,
    )
    parts = zip(heads, pairwise(starts_R.tolist()), pairwise(done.starts), strict=True)
    for (request_hash, user_id, time_ms, domain), (start, stop), (first, last) in parts:
        request_id = f"{request_hash:016x}"
        impression = Impression(
            request_id=request_id,
            user_id=user_id,
            event_time_ms=time_ms,
            domain=log.domains[domain],
            policy=config.policy,
            schema_fingerprint=schema.fingerprint,
            item_ids_K=item_N[start:stop],
            scores_K=unknown[stop - start],
            propensities_K=unknown[stop - start],
            keys=RaggedKeys(keys.keys_T[key_offsets[start] : key_offsets[stop]], keys.lengths_NF[start:stop]),
        )
        yield impression, done.feedback(request_id, first, last) if first < last else []
