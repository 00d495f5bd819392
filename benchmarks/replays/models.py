"""Learners whose initial weights follow a seed, and scorers that read their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from infra.recipes.recipe import Recipe, wide_and_vector
from recsys.ranking.adam import AdamConfig
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer
from recsys.table import TableSpec
from recsys.table.modules import Pooling
from recsys.table.native import NativeTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """All that a learner is built from."""

    table: TableSpec
    tower: DeepFMConfig
    pooling: Mapping[str, Pooling]
    adam: AdamConfig = field(default_factory=AdamConfig)
    micro_batch: int = 64
    """Examples per learning step."""

    def learner(self) -> RankingLearner:
        """One that knows nothing."""
        return RankingLearner(NativeTable(self.table, threads=1), self.tower, self.pooling, self.adam)

    def scorer(self, learner: RankingLearner, *, sample_rate: float = 1.0) -> RankingScorer:
        """One over the learner's own rows, with a copy of its dense weights as they are now."""
        weights = learner.dense_weights()
        return RankingScorer(learner.table, self.tower, self.pooling, weights, sample_rate=sample_rate)


def synthetic_model(seed: int, *, dim: int = 8) -> Model:
    """DeepFM over user and item, with the MovieLens recipe's rates."""
    table = wide_and_vector("synthetic", dim=dim, wide_rate=0.05, vector_rate=0.05)
    return Model(
        table=replace(table, seed=seed, missing="initializer"),
        tower=DeepFMConfig(n_features=2, vector_dim=dim, hidden=(32,), seed=seed),
        pooling={"user": "sum", "item": "sum"},
    )


def recipe_model(recipe: Recipe, seed: int) -> Model:
    """The recipe's, from other initial weights."""
    if not isinstance(recipe.tower, DeepFMConfig):
        raise TypeError(f"recipe {recipe.name!r}: want a DeepFM tower, got {type(recipe.tower).__name__}")
    return Model(
        table=replace(recipe.table, seed=seed),
        tower=replace(recipe.tower, seed=seed),
        pooling=recipe.pooling,
        adam=recipe.adam,
        micro_batch=recipe.micro_batch,
    )
