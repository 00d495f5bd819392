"""Several passes over shuffled examples: how models are compared on data that is all at hand.

The online loop and ``batch_loop`` see each example once, in time order; this is for experiments, and
for models that are trained anew each day.

Axes: N rows, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, ShapeError
from recsys.features import RaggedKeys
from recsys.keys import Ids
from recsys.ranking.learner import RankingLearner
from training.micro_batches import micro_batches

Floats = NDArray[np.float32]

_PREDICTED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRows:
    """Rows with their labels. Immutable: any number of readers."""

    keys: RaggedKeys
    label_NL: Floats
    """NaN where a row says nothing of a label."""
    event_time_s_N: Ids

    def __post_init__(self) -> None:
        n = len(self.keys)
        if self.label_NL.ndim != 2 or len(self.label_NL) != n or len(self.event_time_s_N) != n:
            raise ShapeError(
                f"want labels (N, L) and times of {n} rows; got {self.label_NL.shape} "
                f"and {self.event_time_s_N.shape}"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows_M: Ids) -> LabelledRows:
        """The same of other rows, in the order asked for."""
        return LabelledRows(self.keys.take(rows_M), self.label_NL[rows_M], self.event_time_s_N[rows_M])


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochsConfig:
    """How rows are gone through."""

    epochs: int = 12
    """Passes at the most; >= 1."""
    batch: int = 1024
    """Rows of a learning step; >= 1."""
    shuffled: bool = True
    """Each pass in an order of its own; else in the order given."""
    seed: int = 0
    """Of the orders."""

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1:
            raise ConfigError(f"want epochs and batch >= 1, got {self.epochs} and {self.batch}")


def learn_epochs(
    learner: RankingLearner,
    rows: LabelledRows,
    config: EpochsConfig,
    *,
    after_step: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Learn pass after pass; yields how many are done after each, for the caller to look, or to stop."""
    random = np.random.default_rng(config.seed)
    for epoch in range(1, config.epochs + 1):
        passed = rows.take(random.permutation(len(rows))) if config.shuffled else rows
        labels = passed.label_NL[:, 0] if learner.n_tasks == 1 else passed.label_NL
        newest_s = int(passed.event_time_s_N.max(initial=0))
        for keys, part in micro_batches(passed.keys, config.batch):
            # A pass is dated as a whole: its order is not that of time, and a table's clock cannot go back.
            learner.learn(keys, labels[part], event_time_s=newest_s)
            after_step()
        yield epoch


def predict_rows(learner: RankingLearner, keys: RaggedKeys) -> Floats:
    """Probability of each label for each row, (N, L). Changes nothing."""
    parts = [learner.predict_tasks(piece) for piece, _ in micro_batches(keys, _PREDICTED_AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty((0, learner.n_tasks), np.float32)
