"""One model, one seed: train with early stopping on validation, score on test at the best epoch.

Axes: N rows of a part, K clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from infra.multidomain.cluster_watch import (
    ClusterWatch,
    cluster_count,
    clusters_of,
    purity,
    shares,
    shares_by_group,
)
from infra.multidomain.costs import Contender, Cost
from infra.multidomain.data import Comparison
from recsys.errors import ConfigError
from recsys.evaluation.ranking_metrics import auc, calibration, gauc, group_aucs, log_loss
from recsys.keys import Ids
from recsys.multidomain.tower import MultiDomainConfig
from recsys.ranking.adam import AdamConfig
from recsys.ranking.learner import RankingLearner
from recsys.table import Adam, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.modules import Pooling
from recsys.table.native import NativeTable
from training.epochs import EpochsConfig, LabelledRows, learn_epochs, predict_rows

Floats = NDArray[np.float32]
Parts = Mapping[str, LabelledRows]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """How every model is trained."""

    learning_rate: float = 1e-3
    """Of Adam, for rows and dense weights alike; > 0."""
    batch: int = 1024
    """Rows of a step; >= 1."""
    epochs: int = 12
    """At the most; >= 1."""
    patience: int = 2
    """Epochs without a better validation AUC before training ends; >= 1."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0.0 or min(self.batch, self.epochs, self.patience) < 1:
            raise ConfigError(f"want learning_rate > 0 and batch, epochs and patience >= 1; got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one model and seed gave."""

    arm: str
    seed: int
    cost: Cost
    scores: dict[str, float]
    """Test metrics: auc, mean_domain_auc, worst_domain_auc, log_loss, calibration, gauc where rows have
    users, purity where there are clusters and their latents are known. NaN where one is not defined."""
    domain_auc: dict[str, float]
    """Of the domains whose test rows have labels of both kinds."""
    epoch: int
    """The one that was chosen: after it validation AUC was best."""
    valid_auc: list[float]
    """After each epoch."""
    step_ms: float
    """Median time of a learning step, on one thread."""
    usage: list[list[float]] = field(default_factory=list)
    """Share of each cluster in training, after every tenth step from the first; this and the rest: empty
    without clusters."""
    clusters: dict[str, float] = field(default_factory=dict)
    """The last report of the clusters."""
    shares: list[float] = field(default_factory=list)
    """Of the test rows, the share that each cluster gets."""
    domain_shares: dict[str, list[float]] = field(default_factory=dict)
    """The same of each domain's."""


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """The test part as it is seen after the best epoch so far."""

    epoch: int
    valid_auc: float
    predicted_N: Floats
    cluster_N: Ids | None


def run_trial(data: Comparison, model: Contender, *, seed: int, training: TrialConfig) -> Trial:
    """Train one model from one seed and score it. The same seed gives the same scores, on one thread."""
    places = data.split(seed)
    parts = {part: data.rows.take(at) for part, at in places.items()}
    learner = new_learner(data, model.config, seed, training.learning_rate)
    watch = ClusterWatch(learner)
    chosen, valid_auc = _learned(learner, parts, training, seed, watch)
    scores, domain_auc = _scored(data, places["test"], chosen.predicted_N, parts["test"].label_NL[:, 0])
    own: list[float] = []
    of_domains: dict[str, list[float]] = {}
    if chosen.cluster_N is not None:
        n_clusters = cluster_count(learner)
        own = shares(chosen.cluster_N, n_clusters)
        of_domains = shares_by_group(chosen.cluster_N, data.domain_N[places["test"]], n_clusters)
        if data.latent_N is not None:
            scores["purity"] = purity(chosen.cluster_N, data.latent_N[places["test"]])
    return Trial(
        arm=model.arm,
        seed=seed,
        cost=model.cost,
        scores=scores,
        domain_auc=domain_auc,
        epoch=chosen.epoch,
        valid_auc=valid_auc,
        step_ms=watch.step_ms,
        usage=watch.usage,
        clusters=watch.report(),
        shares=own,
        domain_shares=of_domains,
    )


def new_learner(data: Comparison, config: MultiDomainConfig, seed: int, rate: float) -> RankingLearner:
    """A learner at its initial weights; Adam of the same rate for rows and dense weights."""
    adam = Adam(learning_rate=rate, beta2=0.999, epsilon=1e-8)
    # Bounds of an even draw that has this standard deviation.
    reach = data.init * 3**0.5
    vectors = Uniform(low=-reach, high=reach)
    slices = (
        SliceSpec(name="wide", dim=config.n_tasks, optimizer=adam, initializer=Zeros()),
        SliceSpec(name="vector", dim=config.vector_dim, optimizer=adam, initializer=vectors),
    )
    table = NativeTable(TableSpec(name=data.name, slices=slices, seed=seed, missing="initializer"), threads=1)
    pooling: dict[str, Pooling] = {f"feature_{place}": "mean" for place in range(config.n_features)}
    return RankingLearner(table, replace(config, seed=seed), pooling, AdamConfig(learning_rate=rate))


def _learned(
    learner: RankingLearner, parts: Parts, training: TrialConfig, seed: int, watch: ClusterWatch
) -> tuple[_Chosen, list[float]]:
    """Train until validation is no longer better; the best epoch, and the validation AUC of all."""
    passes = EpochsConfig(epochs=training.epochs, batch=training.batch, seed=seed)
    valid_auc: list[float] = []
    chosen: _Chosen | None = None
    for epoch in learn_epochs(learner, parts["train"], passes, after_step=watch.after_step):
        predicted_N = predict_rows(learner, parts["valid"].keys)[:, 0]
        valid_auc.append(auc(predicted_N, parts["valid"].label_NL[:, 0]))
        if chosen is None or valid_auc[-1] > chosen.valid_auc:
            test = parts["test"]
            predicted_N = predict_rows(learner, test.keys)[:, 0]
            chosen = _Chosen(epoch, valid_auc[-1], predicted_N, clusters_of(learner, test))
        elif epoch - chosen.epoch >= training.patience:
            break
        watch.skip()
    assert chosen is not None, "there is at least one epoch"
    return chosen, valid_auc


def _scored(
    data: Comparison, places: Ids, predicted_N: Floats, label_N: Floats
) -> tuple[dict[str, float], dict[str, float]]:
    """(metrics of all rows, AUC of each domain's)."""
    domain_auc = group_aucs(predicted_N, label_N, data.domain_N[places])
    each = list(domain_auc.values()) or [float("nan")]
    scores = {
        "auc": auc(predicted_N, label_N),
        "mean_domain_auc": float(np.mean(each)),
        "worst_domain_auc": min(each),
        "log_loss": log_loss(predicted_N, label_N),
        "calibration": calibration(predicted_N, label_N),
    }
    if data.user_N is not None:
        scores["gauc"] = gauc(predicted_N, label_N, data.user_N[places])
    return scores, {str(domain): value for domain, value in domain_auc.items()}
