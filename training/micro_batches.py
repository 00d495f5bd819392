"""Consecutive pieces of a batch: what one learning step sees, online and in batch alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch
from recsys.ranking.learner import RankingLearner
from recsys.ranking.statements import statements_of
from training.showings import one_row_per_showing

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def micro_batches(keys: RaggedKeys, size: int) -> Iterator[tuple[RaggedKeys, slice]]:
    """Consecutive rows in pieces of ``size``, the last one shorter: (their keys, which rows they are).

    A piece never spans two batches, so the steps depend on how the examples were written to the
    log and on nothing else.
    """
    offsets = keys.offsets
    for start in range(0, len(keys), size):
        rows = slice(start, min(start + size, len(keys)))
        piece = RaggedKeys(keys.keys_T[offsets[rows.start] : offsets[rows.stop]], keys.lengths_NF[rows])
        yield piece, rows


def learn_in_pieces(learner: RankingLearner, batch: ExampleBatch, size: int) -> Floats:
    """Predict each piece and then learn it, in order; what was predicted of the first label, (B,).

    The learner's labels are the batch's first ones. Rows that state labels of one showing are learned as
    one. Rows that say nothing of any label are left out before pieces are cut: they are neither learned
    nor predicted, and read NaN. Raises ConfigError for sample rates that cannot be, and for a batch of
    fewer labels than the learner has.
    """
    n_tasks = learner.n_tasks
    if len(batch.label_names) < n_tasks:
        raise ConfigError(
            f"want examples of {n_tasks} labels, got {batch.label_names}; join with this recipe"
        )
    showings, place_B = one_row_per_showing(batch)
    is_stated_M = ~np.isnan(showings.label_BL[:, :n_tasks]).all(axis=1)
    predicted_M = np.full(len(showings), np.nan, np.float32)
    if not is_stated_M.all():
        showings = showings.take(np.flatnonzero(is_stated_M))
    labels = showings.label_B if n_tasks == 1 else showings.label_BL[:, :n_tasks]
    stated_L = [statements_of(showings, label) for label in range(n_tasks)]
    predicted = [np.empty(0, np.float32)]
    for piece, rows in micro_batches(showings.keys, size):
        predicted.append(
            learner.step(
                piece,
                labels[rows],
                event_time_s=int(showings.event_time_ms_B[rows].max()) // 1000,
                stated=[None if stated is None else stated.rows(rows) for stated in stated_L],
            )
        )
    predicted_M[is_stated_M] = np.concatenate(predicted)
    is_silent_B = np.isnan(batch.label_BL[:, :n_tasks]).all(axis=1)
    return np.where(is_silent_B, np.float32(np.nan), predicted_M[place_B])
