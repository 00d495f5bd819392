"""Learn what is told of a stream, and predict every row of the stream before anything is told of it.

Rows are predicted a chunk at a time, by the model that has learned what was stated before the chunk.

Axes: N rows of the stream, M statements.
"""

from __future__ import annotations

import numpy as np

from recsys.ranking.learner import RankingLearner
from replays.models import Model
from replays.stream import Floats, Stream
from replays.told import Told
from training.micro_batches import micro_batches

CHUNK = 8192


def follow(
    stream: Stream, told: Told, model: Model, *, chunk: int = CHUNK, corrects: bool = True, shift: float = 1.0
) -> Floats:
    """Probability of each row, (N,), before it was told of.

    ``corrects`` is whether the loss allows for how rows were stated; without it, ``shift`` is the rate
    that the scorer is told of, 1 for none.
    """
    learner = model.learner()
    served_N = np.empty(len(stream), np.float32)
    learned = 0
    for start in range(0, len(stream), chunk):
        stop = min(start + chunk, len(stream))
        keys = stream.keys_between(start, stop)
        served_N[start:stop] = model.scorer(learner, sample_rate=shift).score(keys)
        until_s = np.inf if stop == len(stream) else stream.time_s_N[stop]
        known = int(np.searchsorted(told.at_s_M, until_s))
        learn_told(learner, stream, told, slice(learned, known), model.micro_batch, corrects=corrects)
        learned = known
    return served_N


def learn_told(
    learner: RankingLearner, stream: Stream, told: Told, part: slice, size: int, *, corrects: bool
) -> None:
    """Take steps over consecutive statements, ``size`` at a time."""
    row_M, label_M, at_s_M = told.row_M[part], told.label_M[part], told.at_s_M[part]
    stated = told.statements(part) if corrects else None
    for piece, rows in micro_batches(stream.keys_at(row_M), size):
        learner.step(
            piece,
            label_M[rows],
            event_time_s=int(at_s_M[rows][-1]),
            stated=None if stated is None else stated.rows(rows),
        )
