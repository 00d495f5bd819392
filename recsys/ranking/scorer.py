"""The scorer: what serving needs of a ranker, and nothing of what learning needs.

Axes: N candidates of a request, F features, D = 1 + K columns of a row, T keys in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.errors import ConfigError, ShapeError
from recsys.features import RaggedKeys
from recsys.ranking.blocks import pool_rows
from recsys.ranking.history_attention import HistoryTower
from recsys.ranking.sampling_correction import serving_shift
from recsys.ranking.tower import TowerConfig, check_table, import_weights, log_odds
from recsys.table.table import EmbeddingTable

Floats = NDArray[np.float32]


class RankingScorer:
    """A table and a tower that only read. Any number of callers of score beside one of load_dense.

    ``pooling`` names the features in the schema's order, as the learner's does. A score comes from one
    whole set of dense weights; the rows are as new as the table's.
    """

    def __init__(
        self,
        table: EmbeddingTable,
        tower: TowerConfig,
        pooling: Mapping[str, Literal["sum", "mean"]],
        weights: Mapping[str, Floats] | None = None,
        *,
        sample_rate: float = 1.0,
    ) -> None:
        """``sample_rate`` is for a model that was trained elsewhere, on that share of the negatives and
        without a correction; our own learner corrects in its loss, and needs none here.
        """
        self._shift = serving_shift(sample_rate)
        check_table(tower, table.spec, len(pooling))
        for feature, how in pooling.items():
            if how not in ("sum", "mean"):
                raise ConfigError(f"pooling of {feature!r} must be 'sum' or 'mean', got {how!r}")
        self._table = table
        self._config = tower
        self._is_mean_F = np.array([how == "mean" for how in pooling.values()])
        self._tower = tower.build().requires_grad_(requires_grad=False).eval()
        if weights is not None:
            self.load_dense(weights)

    def score(self, batch: RaggedKeys) -> Floats:
        """Probability of the first label for each candidate, (N,): the learner's ``predict``, at rate 1.

        Raises ShapeError unless the batch has as many features as the tower.
        """
        p_NL = self.score_tasks(batch)
        # Of one task it is all there is; a view costs nothing.
        return p_NL[:, 0]

    def score_tasks(self, batch: RaggedKeys) -> Floats:
        """Probability of each label for each candidate, (N, L). Raises as ``score`` does."""
        if batch.lengths_NF.shape[1:] != self._is_mean_F.shape:
            raise ShapeError(
                f"want keys of {len(self._is_mean_F)} features per row, got lengths {batch.lengths_NF.shape}"
            )
        if not len(batch):
            return np.empty((0, self._config.n_tasks), np.float32)
        tower = self._tower
        pool = tower.pool if isinstance(tower, HistoryTower) else pool_rows
        rows_TD = self._table.lookup(batch.keys_T)
        with torch.inference_mode():
            pooled_NW = pool(torch.from_numpy(rows_TD), batch.lengths_NF, self._is_mean_F)
            logit_NL = log_odds(tower, self._config, pooled_NW, batch)
            p_NL: Floats = torch.sigmoid(logit_NL + self._shift if self._shift else logit_NL).numpy()
        return p_NL

    def load_dense(self, weights: Mapping[str, Floats]) -> None:
        """Score with these weights from the next call on; calls under way keep the old ones.

        Raises SnapshotError or ShapeError for weights of another tower, which change nothing.
        """
        tower = self._config.build()
        import_weights(tower, weights)
        tower.requires_grad_(requires_grad=False).eval()
        with torch.inference_mode():
            tower.fold()
        # One assignment of a finished tower: a score under way never sees half of it.
        self._tower = tower
