"""Train one arm on ratings: several shuffled epochs, or one pass in time order.

Axes: N ratings, B ratings of a batch, P keys per id, Q = 2·P keys per rating, C columns of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from collisions.arms import Arm, Encoding, Keys
from collisions.model import DeepFM, Floats
from collisions.ratings import Places, Ratings, Split, temporal_split
from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.native import NativeTable

FROZEN_RANGE = 1.0
"""Rows that never learn are drawn wide, so that the dense part can tell them apart."""
PREDICT_BATCH = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """What all arms of one protocol have in common."""

    learning_rate: float = 0.02
    """Of the rows and of the dense part; > 0."""
    weight_decay: float = 0.0
    """Pull of each touched row towards 0; >= 0."""
    epochs: int = 5
    """Passes over the ratings to fit on; >= 1. The pass in time order is always one."""
    batch: int = 512
    """Ratings of one step; >= 1."""
    vector_dim: int = 16
    """K."""
    hidden: tuple[int, int] = (64, 32)
    """Widths of the MLP's layers."""
    row_range: float = 0.05
    """New vectors are uniform in ± this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well one model ranks, and how well its probabilities fit."""

    auc: float
    """1 is perfect, 0.5 is chance."""
    log_loss: float
    """Nats per rating."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """One arm, one seed."""

    validation: tuple[Score, ...]
    """After each epoch."""
    test: tuple[Score, ...]
    """After each epoch."""
    logit_T: Floats
    """Of the test ratings, at the epoch that validation AUC picks."""
    test_T: Places
    """Which ratings these are."""
    rows: int
    """Most rows that were held at once; of an array, all."""
    n_bytes: int
    """Most bytes held at once for learning: weights, optimizer state, keys, metadata, index and filter."""

    @property
    def best_epoch(self) -> int:
        """The epoch, from 0, that validation AUC picks."""
        return int(np.argmax([score.auc for score in self.validation]))

    @property
    def chosen(self) -> Score:
        """Test score at that epoch."""
        return self.test[self.best_epoch]


class Learner:
    """A table, a dense part, and the two verbs over them. One thread only."""

    def __init__(self, arm: Arm, encoding: Encoding, config: TrainingConfig, seed: int) -> None:
        self._arm, self._fixed_rows = arm, encoding.fixed_rows
        self._spec = table_spec(arm, config, seed)
        self._table = NativeTable(self._spec, threads=1)
        self._dense = DeepFM(
            vector_dim=config.vector_dim,
            hidden=config.hidden,
            learning_rate=config.learning_rate,
            seed=seed,
        )
        self.rows, self.n_bytes = 0, 0

    def predict(self, keys_BQ: Keys) -> Floats:
        """Log-odds, (B,)."""
        return self._dense.forward(self._rows(keys_BQ)).logit_B

    def step(self, keys_BQ: Keys, label_B: Floats, time_s: int) -> Floats:
        """Learn one batch, and return the log-odds that it had before."""
        seen = self._dense.forward(self._rows(keys_BQ))
        gradient_B2C = self._dense.backward(seen, label_B)
        self._dense.step()
        if not self._arm.is_frozen:
            parts = keys_BQ.shape[1] // 2
            gradient_NC = np.repeat(gradient_B2C, parts, axis=1).reshape(-1, self._spec.dim)
            self._table.learn(keys_BQ.reshape(-1), gradient_NC, event_time_s=time_s)
        return seen.logit_B

    def sweep(self, max_rows: int) -> None:
        """Look at the next rows and drop the expired."""
        self._table.sweep(max_rows)

    def weigh(self) -> None:
        """Raise ``rows`` and ``n_bytes`` to what is held now."""
        if self._fixed_rows is not None:
            self.rows, self.n_bytes = self._fixed_rows, self._fixed_rows * self._spec.row_bytes
            return
        memory = self._table.memory()
        held = memory.bytes_live + memory.bytes_index + memory.bytes_filter
        self.rows, self.n_bytes = max(self.rows, len(self._table)), max(self.n_bytes, held)

    def _rows(self, keys_BQ: Keys) -> Floats:
        rows = self._table.lookup(keys_BQ.reshape(-1))
        if keys_BQ.shape[1] == 2:
            return rows.reshape(-1, 2, self._spec.dim)
        summed: Floats = rows.reshape(len(keys_BQ), 2, -1, self._spec.dim).sum(axis=2)
        return summed


def table_spec(arm: Arm, config: TrainingConfig, seed: int) -> TableSpec:
    """A wide column from 0 and a small random vector; ids without a row read what one would hold."""
    rule = Adagrad(learning_rate=config.learning_rate, weight_decay=config.weight_decay)
    spread = FROZEN_RANGE if arm.is_frozen else config.row_range
    return TableSpec(
        name="ids",
        slices=(
            SliceSpec(name="wide", dim=1, optimizer=rule, initializer=Zeros(), codec=arm.codec),
            SliceSpec(
                name="vector",
                dim=config.vector_dim,
                optimizer=rule,
                initializer=Uniform(low=-spread, high=spread),
                codec=arm.codec,
            ),
        ),
        seed=seed,
        missing="initializer",
        admission=arm.admission,
        expiry=arm.expiry,
    )


def train_in_epochs(arm: Arm, ratings: Ratings, split: Split, config: TrainingConfig, seed: int) -> Outcome:
    """Shuffled passes over the ratings to fit on, the same order in every arm; scored after each one."""
    encoding = arm.encode(ratings.n_users, ratings.n_movies, seed)
    learner = Learner(arm, encoding, config, seed)
    validation: list[Score] = []
    test: list[Score] = []
    best_logit_T = np.empty(0, dtype=np.float32)
    for epoch in range(config.epochs):
        order_F = np.random.default_rng([seed, 4, epoch]).permutation(split.fit_F)
        keys_FQ, label_F = rating_keys(encoding, ratings, order_F), ratings.label_N[order_F]
        for start in range(0, len(order_F), config.batch):
            batch = slice(start, start + config.batch)
            # Nothing expires here: shuffled events have no idle time.
            learner.step(keys_FQ[batch], label_F[batch], time_s=0)
        learner.weigh()
        logit_V, logit_T = (
            _predicted(learner, encoding, ratings, part) for part in (split.validation_V, split.test_T)
        )
        validation.append(score(logit_V, ratings.label_N[split.validation_V]))
        test.append(score(logit_T, ratings.label_N[split.test_T]))
        if all(validation[-1].auc > earlier.auc for earlier in validation[:-1]):
            best_logit_T = logit_T
    return Outcome(
        validation=tuple(validation),
        test=tuple(test),
        logit_T=best_logit_T,
        test_T=split.test_T,
        rows=learner.rows,
        n_bytes=learner.n_bytes,
    )


def train_online(arm: Arm, ratings: Ratings, config: TrainingConfig, seed: int) -> Outcome:
    """One pass in time order: each batch is predicted, then learned; scored on the newest ratings."""
    encoding = arm.encode(ratings.n_users, ratings.n_movies, seed)
    learner = Learner(arm, encoding, config, seed)
    split = temporal_split(len(ratings), seed)
    keys_NQ = rating_keys(encoding, ratings, np.arange(len(ratings)))
    logit_N = np.empty(len(ratings), dtype=np.float32)
    for start in range(0, len(ratings), config.batch):
        batch = slice(start, start + config.batch)
        time_s = int(ratings.time_s_N[batch][-1])
        logit_N[batch] = learner.step(keys_NQ[batch], ratings.label_N[batch], time_s=time_s)
        # Every row is looked at within some twenty batches, and weighed before the expired go.
        if start // config.batch % 8 == 0:
            learner.weigh()
        if arm.max_idle_s is not None:
            learner.sweep(512)
    learner.weigh()
    scores = [score(logit_N[part], ratings.label_N[part]) for part in (split.validation_V, split.test_T)]
    return Outcome(
        validation=(scores[0],),
        test=(scores[1],),
        logit_T=logit_N[split.test_T],
        test_T=split.test_T,
        rows=learner.rows,
        n_bytes=learner.n_bytes,
    )


def rating_keys(encoding: Encoding, ratings: Ratings, places_B: Places) -> Keys:
    """Keys of each rating, (B, Q): those of its user, then those of its movie."""
    users, movies = ratings.user_N[places_B], ratings.movie_N[places_B]
    return np.concatenate([encoding.keys_UP[users], encoding.keys_MP[movies]], axis=1)


def score(logit_B: Floats, label_B: Floats) -> Score:
    """Exact AUC and mean log loss."""
    loss_B = np.logaddexp(0.0, logit_B.astype(np.float64)) - label_B * logit_B
    return Score(auc=float(roc_auc_score(label_B, logit_B)), log_loss=float(loss_B.mean()))


def constant_score(ratings: Ratings, split: Split) -> Score:
    """Of the best constant: the share of likes among the ratings to fit on."""
    share = float(ratings.label_N[split.fit_F].mean())
    label_T = ratings.label_N[split.test_T]
    return score(np.full(len(label_T), np.log(share / (1.0 - share)), dtype=np.float32), label_T)


def _predicted(learner: Learner, encoding: Encoding, ratings: Ratings, places: Places) -> Floats:
    logits = [
        learner.predict(rating_keys(encoding, ratings, places[start : start + PREDICT_BATCH]))
        for start in range(0, len(places), PREDICT_BATCH)
    ]
    return np.concatenate(logits)
