"""MMoE: experts that all domains share, mixed by a gate of each domain, then that domain's tower.

Axes: B examples, E experts, H columns of an expert's output.
Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
KDD 2018, doi 10.1145/3219819.3220007, with domains for tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.multidomain.bucketed_mlp import Buckets, MLPBank, plain_mlp
from recsys.multidomain.domain_net import DomainNet, NetShape
from recsys.ranking.blocks import mixture
from recsys.ranking.tower import check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class MMoEConfig:
    """Experts and towers."""

    experts: int = 3
    """E; >= 1."""
    hidden: tuple[int, ...] = (128, 64)
    """Of each expert; at least one."""
    tower: tuple[int, ...] = (32,)
    """Hidden layers of each domain's tower; at least one."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        check_hidden(self.tower)
        if self.experts < 1:
            raise ConfigError(f"experts must be >= 1, got {self.experts}")

    def build(self, shape: NetShape, generator: torch.Generator) -> MMoE:
        """The net at its initial weights."""
        return MMoE(self, shape, generator)


class MMoE(DomainNet):
    """Each row through all experts, its domain's mixture of them, and its domain's tower."""

    def __init__(self, config: MMoEConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        widths = (shape.n_in, *config.hidden)
        self.experts = nn.ModuleList(plain_mlp(widths, generator) for _ in range(config.experts))
        self.gates = MLPBank(shape.n_domains, (shape.n_in, config.experts), generator, ends_linear=True)
        widths = (config.hidden[-1], *config.tower, shape.n_out)
        self.towers = MLPBank(shape.n_domains, widths, generator, ends_linear=True)

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        buckets = Buckets.of(domain_B, self.towers.n_sets)
        x_BD, own = buckets.lined_up(vector_BFV.flatten(1)), buckets.in_order()
        output_BEH = torch.stack([expert(x_BD) for expert in self.experts], dim=1)
        return buckets.put_back(self.towers(mixture(output_BEH, self.gates(x_BD, own)), own))
