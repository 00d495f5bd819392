"""What can be seen of a model's clusters while it learns, and of where it puts rows.

Axes: N rows, K clusters.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.keys import Ids
from recsys.multidomain.adapt_dhm import AdaptDHM
from recsys.multidomain.tower import MultiDomainTower
from recsys.ranking.blocks import pool_rows
from recsys.ranking.learner import RankingLearner
from training.epochs import LabelledRows
from training.micro_batches import micro_batches

LOOK_EVERY = 10
"""Steps between two looks at the clusters."""
_ROUTED_AT_ONCE = 4096


class ClusterWatch:
    """Times a learner's steps and looks at its clusters, if it has any. One thread."""

    def __init__(self, learner: RankingLearner) -> None:
        self._net = _adapt_net(learner)
        self._took_s: list[float] = []
        self._last_s = time.perf_counter()
        self.usage: list[list[float]] = []
        """Share of each cluster after the first step, and after each LOOK_EVERY-th one from there."""

    @property
    def step_ms(self) -> float:
        """Median time of a step; NaN without steps."""
        return 1e3 * float(np.median(self._took_s)) if self._took_s else float("nan")

    def after_step(self) -> None:
        """A step has just ended."""
        self._took_s.append(time.perf_counter() - self._last_s)
        if self._net is not None and len(self._took_s) % LOOK_EVERY == 1:
            self.usage.append(self._net.clusters.usage_K.tolist())
        self.skip()

    def skip(self) -> None:
        """What was done since the last step belongs to none."""
        self._last_s = time.perf_counter()

    def report(self) -> dict[str, float]:
        """The clusters' own report of the last move; empty without clusters."""
        return {} if self._net is None else self._net.clusters.report()


def clusters_of(learner: RankingLearner, rows: LabelledRows) -> Ids | None:
    """Cluster of each row, (N,); None for a model without clusters."""
    net = _adapt_net(learner)
    if net is None:
        return None
    parts = []
    for keys, _ in micro_batches(rows.keys, _ROUTED_AT_ONCE):
        n_features = keys.lengths_NF.shape[1]
        rows_TD = torch.from_numpy(learner.table.lookup(keys.keys_T))
        pooled_BW = pool_rows(rows_TD, keys.lengths_NF, np.ones(n_features, np.bool_))
        vector_BFV = pooled_BW.view(len(keys), n_features, -1)[..., learner.n_tasks :]
        parts.append(net.route(vector_BFV).numpy())
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def cluster_count(learner: RankingLearner) -> int:
    """K; 0 for a model without clusters."""
    net = _adapt_net(learner)
    return 0 if net is None else len(net.clusters.usage_K)


def shares(cluster_N: Ids, n_clusters: int) -> list[float]:
    """Of rows, the share that each cluster gets."""
    counts = np.bincount(cluster_N, minlength=n_clusters)
    return (counts / max(len(cluster_N), 1)).tolist()  # type: ignore[no-any-return]


def shares_by_group(cluster_N: Ids, group_N: NDArray[Any], n_clusters: int) -> dict[str, list[float]]:
    """Of each group's rows, the share that each cluster gets."""
    return {str(group): shares(cluster_N[group_N == group], n_clusters) for group in np.unique(group_N)}


def purity(cluster_N: Ids, latent_N: Ids) -> float:
    """Share of rows that have their cluster's commonest latent."""
    commonest = [np.bincount(latent_N[cluster_N == k]).max() for k in np.unique(cluster_N)]
    return float(np.sum(commonest)) / len(latent_N)


def _adapt_net(learner: RankingLearner) -> AdaptDHM | None:
    tower = learner.tower
    return tower.net if isinstance(tower, MultiDomainTower) and isinstance(tower.net, AdaptDHM) else None
