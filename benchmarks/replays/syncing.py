"""Replay B: one learner, and several servers that see it at different times.

Predicting changes nothing, so one pass of training serves all arms: at each point of the stream where a
server of some arm would be synced, that server's next rows are predicted from the learner's state.
The stream, its shards and all delays are cut at whole learning steps, so every arm sees the same learner.

Axes: N rows of the stream, L rows of its online part, I shards of that part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import log_loss

from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer
from replays.models import Model
from replays.stream import Floats, Ids, Mask, Stream
from training.micro_batches import micro_batches

BATCH_SHARE = 5 / 7
HOUR_S, DAY_S = 3600, 86_400

Dense = Literal["each", "hourly", "daily", "frozen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncArm:
    """When a server is given what was learned."""

    name: str
    """In figures."""
    shards: int
    """Syncs in the online part, at even numbers of rows; 1 is a model frozen at its beginning."""
    dense: Dense = "each"
    """When the dense weights follow: at each sync, at the last whole hour or day, or never."""
    delay_s: int = 0
    """How long a label takes: nothing younger has been learned at a sync."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """Predict rows ``start`` to ``stop`` when ``learned`` rows are learned, with dense weights of then."""

    learned: int
    dense: int
    start: int
    stop: int
    arm: str


def online_start(stream: Stream, model: Model) -> int:
    """First row of the online part: what comes before is learned in one pass as a batch."""
    return _whole(int(len(stream) * BATCH_SHARE), model.micro_batch)


def shard_edges(stream: Stream, model: Model, shards: int) -> Ids:
    """Where shards begin, and the end, (I + 1,)."""
    first = online_start(stream, model)
    edges = np.linspace(first, len(stream), shards + 1).astype(np.int64)
    edges[:-1] = edges[:-1] // model.micro_batch * model.micro_batch
    return edges


def serve(stream: Stream, model: Model, arms: list[SyncArm]) -> dict[str, Floats]:
    """What each arm's server would have answered for the online rows, (L,) each."""
    first = online_start(stream, model)
    visits = sorted(
        (visit for arm in arms for visit in _visits(stream, model, arm)), key=lambda visit: visit.learned
    )
    captures = {visit.dense for visit in visits}
    stops = sorted(captures | {visit.learned for visit in visits})
    served = {arm.name: np.full(len(stream) - first, np.nan, np.float32) for arm in arms}
    # A scorer each: arms that share dense weights share it, and its rows are always the learner's.
    scorer_at: dict[int, RankingScorer] = {}
    learner, learned, done = model.learner(), 0, 0
    for stop in stops:
        learn_rows(learner, stream, learned, stop, model.micro_batch)
        learned = stop
        if stop in captures:
            scorer_at[stop] = model.scorer(learner)
        while done < len(visits) and visits[done].learned == stop:
            visit = visits[done]
            keys = stream.keys_between(visit.start, visit.stop)
            part = slice(visit.start - first, visit.stop - first)
            served[visit.arm][part] = scorer_at[visit.dense].score(keys)
            done += 1
    return served


def learn_rows(learner: RankingLearner, stream: Stream, start: int, stop: int, size: int) -> None:
    """Take steps over consecutive rows, ``size`` at a time."""
    label_M, time_s_M = stream.label_N[start:stop], stream.time_s_N[start:stop]
    for piece, rows in micro_batches(stream.keys_between(start, stop), size):
        learner.step(piece, label_M[rows], event_time_s=int(time_s_M[rows][-1]))


def _visits(stream: Stream, model: Model, arm: SyncArm) -> Iterator[_Visit]:
    edges = shard_edges(stream, model, arm.shards).tolist()
    for start, stop in pairwise(edges):
        now_s = int(stream.time_s_N[start])
        learned = min(start, _rows_before(stream, model, now_s - arm.delay_s)) if arm.delay_s else start
        match arm.dense:
            case "each":
                dense = learned
            case "hourly":
                dense = _rows_before(stream, model, now_s // HOUR_S * HOUR_S)
            case "daily":
                dense = _rows_before(stream, model, now_s // DAY_S * DAY_S)
            case "frozen":
                dense = edges[0]
        # Dense weights older than the online part went out with the batch model.
        dense = min(max(dense, min(edges[0], learned)), learned)
        yield _Visit(learned, dense, start, stop, arm.name)


def _rows_before(stream: Stream, model: Model, time_s: int) -> int:
    return _whole(int(np.searchsorted(stream.time_s_N, time_s)), model.micro_batch)


def _whole(rows: int, size: int) -> int:
    return rows // size * size


def pooled_scores(stream: Stream, served_L: Floats, first: int) -> dict[str, float]:
    """AUC over all online rows, and over those whose user, or whose item, the batch part had or had not."""
    label_L = stream.label_N[first:]
    seen_user_L = np.isin(stream.user_N[first:], stream.user_N[:first])
    seen_item_L = np.isin(stream.item_N[first:], stream.item_N[:first])
    parts = {
        "": np.ones(len(label_L), np.bool_),
        "new_user.": ~seen_user_L,
        "known_user.": seen_user_L,
        "new_item.": ~seen_item_L,
        "both_known.": seen_user_L & seen_item_L,
    }
    found = {f"{name}auc": _auc(label_L[part_L], served_L[part_L]) for name, part_L in parts.items()}
    found["log_loss"] = float(log_loss(label_L, served_L.astype(np.float64)))
    return {name: value for name, value in found.items() if np.isfinite(value)}


def shares(stream: Stream, first: int) -> dict[str, float]:
    """Of the online rows: whose user or item the batch part did not have."""
    return {
        "new_user": float((~np.isin(stream.user_N[first:], stream.user_N[:first])).mean()),
        "new_item": float((~np.isin(stream.item_N[first:], stream.item_N[:first])).mean()),
    }


def mean_shard_auc(stream: Stream, served_L: Floats, edges: Ids) -> float:
    """The paper's figure: the mean of the shards' own AUCs, of those that have one."""
    first = int(edges[0])
    aucs = [
        _auc(stream.label_N[start:stop], served_L[start - first : stop - first])
        for start, stop in pairwise(edges.tolist())
    ]
    return float(np.nanmean(aucs))


def _auc(label_M: Floats, served_M: Floats) -> float:
    """Mann and Whitney's form, NaN for one class alone: thousands of small shards want a cheap one."""
    n_positive = float(label_M.sum())
    n_pairs = n_positive * (len(label_M) - n_positive)
    if not n_pairs:
        return float("nan")
    rank_sum = float(rankdata(served_M)[label_M > 0.5].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / n_pairs


def is_monotone(values: list[float]) -> bool:
    """Whether no value is below the one before it."""
    rises: Mask = np.diff(values) >= 0
    return bool(rises.all())
