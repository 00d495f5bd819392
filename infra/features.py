"""Features of candidates out of a data set's entity columns, for serving."""

from __future__ import annotations

import numpy as np

from feature_store.datasets.log import Dataset
from recsys.features import FeatureSchema, RaggedKeys
from serving.pipeline import RankQuery


class DatasetFeatures:
    """Keys of one request, made by the same code as those of a replayed log. Any number of callers."""

    def __init__(self, schema: FeatureSchema, dataset: Dataset) -> None:
        self._schema, self._dataset = schema, dataset

    def keys(self, query: RankQuery) -> RaggedKeys:
        """One row per candidate; context numbers replace the request column of their name."""
        n = len(query.item_ids_N)
        columns = self._dataset.columns(
            np.array([query.user_id], np.uint64),
            query.item_ids_N,
            np.array([self._dataset.domain_index(query.domain)]),
            np.array([query.request_time_ms]),
        )
        if query.context:
            columns = columns.replaced(
                {f"request.{name}": np.full(n, int(value)) for name, value in query.context.items()}
            )
        return self._schema.encode(columns, n)
