"""Consecutive pieces of a batch: what one learning step sees, online and in batch alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch
from recsys.ranking.learner import RankingLearner

Floats = NDArray[np.float32]


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
    """Predict each piece and then learn it, in order; what was predicted, (B,)."""
    predicted = [np.empty(0, np.float32)]
    for keys, rows in micro_batches(batch.keys, size):
        newest_s = int(batch.event_time_ms_B[rows].max()) // 1000
        predicted.append(learner.step(keys, batch.label_B[rows], event_time_s=newest_s))
    return np.concatenate(predicted)
