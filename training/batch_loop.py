"""One pass over examples that are already there: the online loop's learning without its log.

The same learner takes the same steps over the same pieces, so a model trained here is bit for bit
the one that the online loop would have made of the same messages, and either can go on from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.interactions import ExampleBatch
from recsys.ranking.learner import RankingLearner
from recsys.ranking.statements import statements_of
from training.micro_batches import learn_in_pieces


@dataclass(slots=True)
class PassStatus:
    """How far a pass has come."""

    examples: int = 0
    as_of_ms: int = 0
    """Event time of the newest example learned."""


def train_on(
    batches: Iterable[ExampleBatch],
    learner: RankingLearner,
    *,
    micro_batch: int,
    metrics: ProgressiveMetrics,
    limit: int | None = None,
) -> PassStatus:
    """Predict, count and learn each example once, in order.

    With a ``limit`` the pass ends with the batch that reaches this many examples.
    """
    status = PassStatus()
    for batch in batches:
        if not len(batch) or (limit is not None and status.examples >= limit):
            continue
        newest_ms = int(batch.event_time_ms_B.max())
        predicted_B = learn_in_pieces(learner, batch, micro_batch)
        metrics.add(predicted_B, batch.label_B, newest_ms, stated=statements_of(batch))
        status.examples += len(batch)
        status.as_of_ms = max(status.as_of_ms, newest_ms)
    return status
