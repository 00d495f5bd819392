"""STAR: a network a domain, whose weights are shared ones times the domain's own.

Three parts: partitioned norm of the input, a product network keyed by the domain, and an auxiliary net
on the domain's vector alone, whose output is added. The domain's own vector goes around the norm:
within a domain it is constant, so that the norm would wipe it out in training and blow up its lag
behind the moving mean in evaluation.

Sheng et al., "One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
Prediction", CIKM 2021, arXiv:2101.11427.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from recsys.multidomain.bucketed_mlp import plain_mlp
from recsys.multidomain.domain_net import DomainNet, NetShape
from recsys.multidomain.partitioned_norm import PartitionedNorm, PartitionedNormConfig
from recsys.multidomain.product_mlp import ProductMLP
from recsys.ranking.tower import check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class StarConfig:
    """Widths, and which of the parts besides the product network there are."""

    hidden: tuple[int, ...] = (128, 64, 32)
    """Of the product network's hidden layers; at least one."""
    norm: PartitionedNormConfig | None = field(default_factory=PartitionedNormConfig)
    """Of the input; None goes without."""
    auxiliary: tuple[int, ...] | None = (32,)
    """Hidden layers of the auxiliary net, at least one; None goes without the net."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        if self.auxiliary is not None:
            check_hidden(self.auxiliary)

    def build(self, shape: NetShape, generator: torch.Generator) -> Star:
        """The net at its initial weights."""
        return Star(self, shape, generator)


class Star(DomainNet):
    """Each row, normalised, through its domain's product network; plus the auxiliary net's output."""

    trains_as_it_serves: ClassVar[bool] = False

    def __init__(self, config: StarConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        self._domain_feature = shape.domain_feature
        n_rest = shape.n_in - shape.dim
        self.norm = None if config.norm is None else PartitionedNorm(shape.n_domains, n_rest, config.norm)
        self.network = ProductMLP(shape.n_domains, (shape.n_in, *config.hidden, shape.n_out), generator)
        self.auxiliary = (
            None
            if config.auxiliary is None
            else plain_mlp((shape.dim, *config.auxiliary, shape.n_out), generator, ends_linear=True)
        )

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        at = self._domain_feature
        own_BV = vector_BFV[:, at]
        rest_BR = torch.cat([vector_BFV[:, :at], vector_BFV[:, at + 1 :]], dim=1).flatten(1)
        if self.norm is not None:
            rest_BR = self.norm(rest_BR, domain_B)
        out_BO: Tensor = self.network(torch.cat([own_BV, rest_BR], dim=1), domain_B)
        return out_BO if self.auxiliary is None else out_BO + self.auxiliary(own_BV)

    def adapt(self) -> None:
        if self.norm is not None:
            self.norm.adapt()

    def fold(self) -> None:
        self.network.fold()
        if self.norm is not None:
            self.norm.fold()
