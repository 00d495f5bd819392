"""DeepFM: a wide sum, a factorisation machine and an MLP over the same rows, added up.

Axes: B examples of a batch, F features, K vector columns, W = F * (1 + K).
Reference: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
IJCAI 2017, arXiv:1703.04247.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.ranking.blocks import fm_logit, linear, mlp, split_pooled
from recsys.ranking.tower import Tower, check_hidden, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepFMConfig:
    """Shape and initial weights of a DeepFM tower."""

    n_features: int
    """F, as many as the feature schema has; >= 1."""
    vector_dim: int = 8
    """K, the width of the table's vector slice; >= 1."""
    hidden: tuple[int, ...] = (32,)
    """Widths of the MLP's layers; at least one."""
    seed: int = 0
    """Of the initial weights."""

    def __post_init__(self) -> None:
        check_sizes(self.n_features, self.vector_dim)
        check_hidden(self.hidden)

    @property
    def n_tasks(self) -> int:
        """L, one label."""
        return 1

    @property
    def domains(self) -> None:
        """The domain is a feature like any other, if it is one."""
        return None

    def build(self) -> DeepFM:
        """A tower at its initial weights: the same bits each time."""
        return DeepFM(self)


class DeepFM(Tower):
    """Log-odds of pooled rows. Any number of callers of forward while nobody changes the weights."""

    def __init__(self, config: DeepFMConfig) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(config.seed)
        self.n_features = config.n_features
        self.mlp = mlp(config.n_features * config.vector_dim, config.hidden, generator)
        self.head = linear(config.hidden[-1], 1, generator)

    def forward(self, pooled_BW: Tensor) -> Tensor:
        """Log-odds, (B,). The head's bias is the model's bias."""
        wide_BF, vector_BFK = split_pooled(pooled_BW, self.n_features)
        deep_B: Tensor = self.head(self.mlp(vector_BFK.flatten(1))).squeeze(1)
        return wide_BF.sum(dim=1) + fm_logit(vector_BFK) + deep_B
