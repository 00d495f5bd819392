"""DCN V2: cross layers that multiply features explicitly, beside an MLP, and a wide sum.

Axes: B examples of a batch, F features, K vector columns, W = F * (1 + K), X = F * K.
Reference: Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, arXiv:2008.13535, the
parallel form with full-rank weights. The wide sum is ours: one weight per key, as in DeepFM.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.ranking.blocks import cross, linear, mlp, split_pooled
from recsys.ranking.tower import Tower, check_hidden, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class DCNv2Config:
    """Shape and initial weights of a DCN V2 tower."""

    n_features: int
    """F, as many as the feature schema has; >= 1."""
    vector_dim: int = 8
    """K, the width of the table's vector slice; >= 1."""
    n_cross: int = 2
    """Cross layers; each multiplies in one more feature; >= 1."""
    hidden: tuple[int, ...] = (32,)
    """Widths of the MLP's layers; at least one."""
    seed: int = 0
    """Of the initial weights."""

    def __post_init__(self) -> None:
        check_sizes(self.n_features, self.vector_dim)
        check_hidden(self.hidden)
        if self.n_cross < 1:
            raise ConfigError(f"n_cross must be >= 1, got {self.n_cross}")

    @property
    def n_tasks(self) -> int:
        """L, one label."""
        return 1

    @property
    def domains(self) -> None:
        """The domain is a feature like any other, if it is one."""
        return None

    def build(self) -> DCNv2:
        """A tower at its initial weights: the same bits each time."""
        return DCNv2(self)


class DCNv2(Tower):
    """Log-odds of pooled rows. Any number of callers of forward while nobody changes the weights."""

    def __init__(self, config: DCNv2Config) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(config.seed)
        n_flat = config.n_features * config.vector_dim
        self.n_features = config.n_features
        self.cross_layers = nn.ModuleList(linear(n_flat, n_flat, generator) for _ in range(config.n_cross))
        self.mlp = mlp(n_flat, config.hidden, generator)
        self.head = linear(n_flat + config.hidden[-1], 1, generator)

    def forward(self, pooled_BW: Tensor) -> Tensor:
        """Log-odds, (B,). The head's bias is the model's bias."""
        wide_BF, vector_BFK = split_pooled(pooled_BW, self.n_features)
        first_BX = crossed_BX = vector_BFK.flatten(1)
        for layer in self.cross_layers:
            crossed_BX = cross(first_BX, crossed_BX, layer(crossed_BX))
        both = torch.cat([crossed_BX, self.mlp(first_BX)], dim=1)
        deep_B: Tensor = self.head(both).squeeze(1)
        return wide_BF.sum(dim=1) + deep_B
