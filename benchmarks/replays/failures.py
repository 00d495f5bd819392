"""Replay C: one shard of the parameters dies, and comes back as it was some time ago.

A shard is the rows whose key's hash falls to it; the dense weights live elsewhere and survive. A draw is a
moment and a shard. One pass over the stream keeps, for each draw, the shard's rows at each age before
its moment, and there forks the learner: each fork has its shard put back to one age, and goes on.

Axes: N rows of the stream, W rows of the window after a failure, S shards, D days.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from recsys.ranking.learner import RankingLearner
from recsys.table.placement import shard_of
from recsys.table.table import Keys, TableRows
from replays.models import Model
from replays.stream import Floats, Mask, Stream
from replays.syncing import learn_rows

HOUR_S, DAY_S = 3600, 86_400
AGES_S = {"0": 0, "1h": HOUR_S, "6h": 6 * HOUR_S, "1d": DAY_S, "3d": 3 * DAY_S}
LOST = "no_snapshot"
UNHARMED = "unharmed"
CHUNK = 512


@dataclass(slots=True, eq=False)
class Draw:
    """One failure, what was kept for it, and what came of it. One writer."""

    at: int
    """Rows learned when the shard dies."""
    shard: int
    kept: dict[str, TableRows] = field(default_factory=dict)
    """The shard's rows by their age at the failure."""
    served: dict[str, Floats] = field(default_factory=dict)
    """What was answered in the window after it, (W,), by arm."""


def draw_failures(stream: Stream, model: Model, *, n_draws: int, n_shards: int, seed: int) -> list[Draw]:
    """Moments at random, three days after the stream's start at the least and a day before its end."""
    random = np.random.default_rng([seed, 15])
    low_s, high_s = int(stream.time_s_N[0]) + 3 * DAY_S, int(stream.time_s_N[-1]) - DAY_S
    moments_s = np.sort(random.integers(low_s, high_s, n_draws))
    return [
        Draw(row_at(stream, model, int(moment_s)), int(random.integers(n_shards))) for moment_s in moments_s
    ]


def row_at(stream: Stream, model: Model, time_s: int) -> int:
    """How many rows are learned by then, in whole steps."""
    row = int(np.searchsorted(stream.time_s_N, time_s))
    return row - row % model.micro_batch


def play(stream: Stream, model: Model, draws: list[Draw], n_shards: int) -> None:
    """Fill in what each draw kept and served."""
    keeping = []
    for draw in draws:
        now_s = int(stream.time_s_N[draw.at])
        keeping += [(row_at(stream, model, now_s - age_s), draw, name) for name, age_s in AGES_S.items()]
    learner, learned = model.learner(), 0
    for row, draw, name in sorted(keeping, key=lambda one: one[0]):
        # The youngest copy is due at the failure itself, or a step before where its second began.
        learn_rows(learner, stream, learned, max(row, learned), model.micro_batch)
        learned = max(row, learned)
        keys = learner.table.keys()
        draw.kept[name] = learner.table.export_rows(keys[shard_of(keys, n_shards) == draw.shard])
        if name == "0":
            draw.at = learned
            _serve_forks(stream, model, learner, draw, n_shards)


def _serve_forks(stream: Stream, model: Model, learner: RankingLearner, draw: Draw, n_shards: int) -> None:
    window = slice(draw.at, row_at(stream, model, int(stream.time_s_N[draw.at]) + DAY_S))
    for arm in (UNHARMED, LOST, *AGES_S):
        fork = copy_of(model, learner)
        if arm != UNHARMED:
            keys = fork.table.keys()
            fork.table.erase(keys[shard_of(keys, n_shards) == draw.shard])
        if arm in AGES_S:
            fork.table.import_rows(draw.kept[arm])
        draw.served[arm] = _serve(stream, model, fork, window)


def _serve(stream: Stream, model: Model, learner: RankingLearner, window: slice) -> Floats:
    """Answer and learn the window, a chunk at a time."""
    parts = []
    for start in range(window.start, window.stop, CHUNK):
        stop = min(start + CHUNK, window.stop)
        parts.append(learner.predict(stream.keys_between(start, stop)))
        learn_rows(learner, stream, start, stop, model.micro_batch)
    return np.concatenate(parts)


def copy_of(model: Model, learner: RankingLearner) -> RankingLearner:
    """A learner in the same state, over a table of its own."""
    fork = model.learner()
    fork.table.import_rows(learner.table.export_rows(learner.table.keys()))
    fork.table.restore_ledger(learner.table.ledger())
    fork.load_dense_state(learner.dense_state())
    return fork


def hit_rows(stream: Stream, draw: Draw, n_shards: int) -> Mask:
    """Rows of the window whose user's own row was in the shard that died, (W,)."""
    keys_W: Keys = stream.user_key_N[draw.at : draw.at + len(draw.served[UNHARMED])]
    hit_W: Mask = shard_of(np.ascontiguousarray(keys_W), n_shards) == draw.shard
    return hit_W


def losses(stream: Stream, draws: list[Draw], n_shards: int) -> dict[str, dict[str, list[float]]]:
    """By arm: AUC and log loss minus the unharmed run's, draw by draw; log loss also of the users hit."""
    found: dict[str, dict[str, list[float]]] = {}
    for arm in (*AGES_S, LOST):
        auc, loss, hit_loss = [], [], []
        for draw in draws:
            label_W = stream.label_N[draw.at : draw.at + len(draw.served[arm])]
            hit_W = hit_rows(stream, draw, n_shards)
            mine_W, other_W = draw.served[arm], draw.served[UNHARMED]
            auc.append(float(roc_auc_score(label_W, mine_W) - roc_auc_score(label_W, other_W)))
            loss.append(_log_loss(label_W, mine_W) - _log_loss(label_W, other_W))
            if hit_W.any():
                hit_loss.append(
                    _log_loss(label_W[hit_W], mine_W[hit_W]) - _log_loss(label_W[hit_W], other_W[hit_W])
                )
        found[arm] = {"auc": auc, "log_loss": loss, "users_hit.log_loss": hit_loss}
    return found


def pooled_auc_of_users_hit(stream: Stream, draws: list[Draw], n_shards: int, arm: str) -> float:
    """AUC over the windows' rows of users hit, all draws together: each alone has too few."""
    hits = [hit_rows(stream, draw, n_shards) for draw in draws]
    pairs = list(zip(draws, hits, strict=True))
    labels = [stream.label_N[draw.at : draw.at + len(hit_W)][hit_W] for draw, hit_W in pairs]
    served = [draw.served[arm][hit_W] for draw, hit_W in pairs]
    return float(roc_auc_score(np.concatenate(labels), np.concatenate(served)))


def _log_loss(label_W: Floats, served_W: Floats) -> float:
    return float(log_loss(label_W, served_W.astype(np.float64), labels=[0, 1]))


def lost_user_days(users: Keys, *, n_shards: int, daily_failures: float, days: int, seed: int) -> float:
    """Share of all user-days lost under a snapshot a day: a failure costs its users the snapshot's age."""
    random = np.random.default_rng([seed, 16])
    users_S = np.bincount(shard_of(users, n_shards), minlength=n_shards)
    # At most one failure a day and shard, at any hour: the snapshot's age is even below a day.
    fails_DS = random.random((days, n_shards)) < daily_failures
    age_DS = random.random((days, n_shards))
    lost = float(((fails_DS * age_DS) @ users_S).sum())
    return lost / (len(users) * days)


def rows_differing_after_replay(stream: Stream, model: Model, *, at: int, age_s: int) -> int:
    """Rows and dense numbers that a restart from a snapshot of that age has otherwise, after reading on."""
    begin = row_at(stream, model, int(stream.time_s_N[at]) - age_s)
    learner = model.learner()
    learn_rows(learner, stream, 0, begin, model.micro_batch)
    restarted = copy_of(model, learner)
    learn_rows(learner, stream, begin, at, model.micro_batch)
    learn_rows(restarted, stream, begin, at, model.micro_batch)
    one, two = (each.table.export_rows(each.table.keys()) for each in (learner, restarted))
    if not np.array_equal(one.keys_N, two.keys_N):
        return len(np.setxor1d(one.keys_N, two.keys_N))
    differs_K = (one.weights_ND != two.weights_ND).any(axis=1) | (one.state_NS != two.state_NS).any(axis=1)
    dense, other = learner.dense_state(), restarted.dense_state()
    return int(differs_K.sum()) + sum(int((dense[name] != other[name]).sum()) for name in dense)


def catch_up_s(stream: Stream, model: Model, *, at: int, backlog: int, per_s: float) -> tuple[float, float]:
    """(seconds until a restart has caught up, examples per second while it did).

    ``backlog`` rows wait before ``at``; new ones arrive at ``per_s``, by the wall clock. It has caught up
    when less than a whole step is left: from there on it waits for its stream.
    """
    learner = model.learner()
    begin = at - backlog
    learn_rows(learner, stream, 0, begin, model.micro_batch)
    started, learned, took_s = time.perf_counter(), begin, 0.0
    while True:
        waiting = min(at + int(per_s * took_s), len(stream)) - learned
        steps = min(waiting, CHUNK) // model.micro_batch
        if not steps:
            return took_s, (learned - begin) / took_s
        stop = learned + steps * model.micro_batch
        learn_rows(learner, stream, learned, stop, model.micro_batch)
        learned, took_s = stop, time.perf_counter() - started


def all_users(stream: Stream) -> Keys:
    """Each user's key once."""
    return np.unique(stream.user_key_N)
