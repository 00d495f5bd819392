"""The tower around a multi-domain net: vectors in, task heads and the wide sum behind.

Axes: B examples, F features, V columns of a vector, L tasks, W = F * (L + V), O columns of a net.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.errors import ConfigError, ShapeError
from recsys.multidomain.domain_net import DomainNetConfig, NetShape
from recsys.ranking.task_heads import TaskHeadsConfig
from recsys.ranking.tower import DomainIndex, Tower, check_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiDomainConfig:
    """A multi-domain ranker's dense part."""

    n_features: int
    """F, as many as the feature schema has; >= 1."""
    vector_dim: int = 16
    """V, the width of the table's vector slice; >= 1."""
    domains: DomainIndex
    """How rows are told apart by domain."""
    domain_feature: int
    """Place of the domain's own feature."""
    net: DomainNetConfig
    """The model."""
    n_tasks: int = 1
    """L, labels that are learned; >= 1."""
    heads: TaskHeadsConfig | None = None
    """What makes tasks out of the net's output; None: the net's last layer itself."""
    wide: bool = True
    """Add each task's first-order weights of all features."""
    seed: int = 0
    """Of the initial weights."""

    def __post_init__(self) -> None:
        check_sizes(self.n_features, self.vector_dim)
        if self.n_tasks < 1:
            raise ConfigError(f"n_tasks must be >= 1, got {self.n_tasks}")

    def build(self) -> MultiDomainTower:
        """A tower at its initial weights: the same bits each time."""
        return MultiDomainTower(self)


class MultiDomainTower(Tower):
    """Log-odds of pooled rows and their domains; as any tower."""

    def __init__(self, config: MultiDomainConfig) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(config.seed)
        shape = NetShape(
            n_features=config.n_features,
            dim=config.vector_dim,
            n_out=config.n_tasks if config.heads is None else config.heads.width,
            n_domains=config.domains.n_domains,
            domain_feature=config.domain_feature,
        )
        self._shape, self._n_tasks, self._wide = shape, config.n_tasks, config.wide
        self.net = config.net.build(shape, generator)
        self.heads = None if config.heads is None else config.heads.build(config.n_tasks, generator)

    @property
    def trains_as_it_serves(self) -> bool:
        """Whether the net's forward pass in training gives what evaluation gives."""
        return self.net.trains_as_it_serves

    @property
    def reads_domain(self) -> bool:
        """Whether the net's outputs depend on the domains that are given."""
        return self.net.reads_domain

    def forward(self, pooled_BW: Tensor, domain_B: Tensor) -> Tensor:
        """Log-odds, (B, L). Raises ShapeError for rows of another width."""
        shape, n_tasks = self._shape, self._n_tasks
        width = shape.n_features * (n_tasks + shape.dim)
        if pooled_BW.ndim != 2 or pooled_BW.shape[1] != width:
            raise ShapeError(f"want pooled rows of {width} columns, got {tuple(pooled_BW.shape)}")
        pooled_BFD = pooled_BW.view(len(pooled_BW), shape.n_features, -1)
        out: Tensor = self.net(pooled_BFD[..., n_tasks:], domain_B)
        first_order_BL = pooled_BFD[..., :n_tasks].sum(dim=1) if self._wide else None
        if self.heads is None:
            return out if first_order_BL is None else out + first_order_BL
        # Not added behind the heads: tasks that they tie together would come apart.
        logit_BL: Tensor = self.heads(torch.relu(out), first_order_BL)
        return logit_BL

    def adapt(self) -> None:
        """Fold in what the last training pass noted."""
        self.net.adapt()

    def fold(self) -> None:
        """Work out ahead what serving needs."""
        self.net.fold()
