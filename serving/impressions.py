"""What was shown goes back to the stream, with features, scores and versions as served."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.features import RaggedKeys
from recsys.interactions import Impression
from serving.pipeline import RankQuery
from streaming.events import encode_impression
from streaming.sink import EventSink
from streaming.topics import IMPRESSIONS


def take_rows(keys: RaggedKeys, rows_K: NDArray[np.int64]) -> RaggedKeys:
    """The feature rows of the items that were returned, in their order."""
    offsets = keys.offsets
    parts = [keys.keys_T[offsets[row] : offsets[row + 1]] for row in rows_K]
    return RaggedKeys(np.concatenate(parts), keys.lengths_NF[rows_K])


class ImpressionLog:
    """Publishes impressions without waiting for the broker. Any number of callers."""

    def __init__(self, sink: EventSink, schema_fingerprint: int) -> None:
        self._sink, self._schema_fingerprint = sink, schema_fingerprint

    def record(
        self,
        query: RankQuery,
        keys: RaggedKeys,
        shown_K: NDArray[np.int64],
        score_K: NDArray[np.float32],
        *,
        request_id: str,
        policy: str,
        model_version: str,
    ) -> None:
        """Hand one impression to the sink; ``shown_K`` are places among the candidates."""
        impression = Impression(
            request_id=request_id,
            user_id=query.user_id,
            event_time_ms=query.request_time_ms,
            domain=query.domain,
            policy=policy,
            model_version=model_version,
            schema_fingerprint=self._schema_fingerprint,
            item_ids_K=query.item_ids_N[shown_K],
            scores_K=score_K,
            propensities_K=np.ones(len(shown_K), np.float32),
            keys=take_rows(keys, shown_K),
        )
        self._sink.publish(IMPRESSIONS, str(query.user_id).encode(), encode_impression(impression))
