"""Consecutive pieces of a batch: what one learning step sees, online and in batch alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch
from recsys.ranking.learner import RankingLearner
from recsys.ranking.statements import statements_of

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
    """Predict each piece and then learn it, in order; what was predicted, (B,).

    Rows that say nothing of the first label are left out before pieces are cut: they are neither
    learned nor predicted, and read NaN. Raises ConfigError for sample rates that cannot be.
    """
    is_stated_B, stated = ~np.isnan(batch.label_B), statements_of(batch)
    keys, label_B, time_ms_B = batch.keys, batch.label_B, batch.event_time_ms_B
    if not is_stated_B.all():
        keys, label_B, time_ms_B = (
            keys.take(np.flatnonzero(is_stated_B)),
            label_B[is_stated_B],
            time_ms_B[is_stated_B],
        )
        stated = None if stated is None else stated.rows(is_stated_B)
    predicted_B = np.full(len(batch), np.nan, np.float32)
    predicted = [np.empty(0, np.float32)]
    for piece, rows in micro_batches(keys, size):
        predicted.append(
            learner.step(
                piece,
                label_B[rows],
                event_time_s=int(time_ms_B[rows].max()) // 1000,
                stated=None if stated is None else stated.rows(rows),
            )
        )
    predicted_B[is_stated_B] = np.concatenate(predicted)
    return predicted_B
