"""SAR-Net: the input scaled and shifted by domain, then shared experts and the domain's own, gated.

x' = w_d ⊙ x + b_d. Every expert is a linear layer and a batch norm, without an activation; the softmax of
a gate over [x', domain's vector] mixes the shared and the own ones, and an MLP for all domains reads
the mixture. The gate's input is our choice. Public code normalises an expert's input, not its output;
there the norm of a domain's own expert undoes w_d and b_d.

Norms are ``PartitionedNorm``: of all rows for shared experts, of the domain's rows for its own. So few
rows go by the moving statistics in training too, and a domain never seen by those of all rows.

Axes: B examples, D columns of x, N domains, P own experts, S shared ones, E = P + S, H columns of an
expert's output.
Shen et al., "SAR-Net: A Scenario-Aware Ranking Network for Personalized Fair Recommendation in Hundreds
of Travel Scenarios", CIKM 2021, arXiv:2110.06475.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.multidomain.bucketed_mlp import Buckets, MLPBank, plain_mlp
from recsys.multidomain.domain_net import DomainNet, NetShape
from recsys.multidomain.partitioned_norm import PartitionedNorm, PartitionedNormConfig
from recsys.ranking.blocks import mixture
from recsys.ranking.tower import check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class SARNetConfig:
    """Experts and the MLP behind them."""

    shared_experts: int = 8
    """S; >= 1."""
    domain_experts: int = 2
    """P, for each domain; >= 1."""
    expert_dim: int = 16
    """H; >= 1."""
    hidden: tuple[int, ...] = (32, 32)
    """Hidden layers of the MLP; at least one."""
    norm: PartitionedNormConfig = field(default_factory=PartitionedNormConfig)
    """Of all experts' batch norms."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        if min(self.shared_experts, self.domain_experts, self.expert_dim) < 1:
            raise ConfigError(f"want shared_experts, domain_experts and expert_dim >= 1, got {self}")

    def build(self, shape: NetShape, generator: torch.Generator) -> SARNet:
        """The net at its initial weights."""
        return SARNet(self, shape, generator)


class SARNet(DomainNet):
    """Each row through its domain's transform, the shared and own experts, and the MLP."""

    trains_as_it_serves: ClassVar[bool] = False

    def __init__(self, config: SARNetConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        n_domains, widths = shape.n_domains, (shape.n_in, config.expert_dim)
        n_own, n_shared = config.domain_experts, config.shared_experts
        self._domain_feature, self._n_experts = shape.domain_feature, n_own + n_shared
        self.scale_ND = nn.Parameter(torch.ones(n_domains, shape.n_in))
        self.shift_ND = nn.Parameter(torch.zeros(n_domains, shape.n_in))
        self.own = nn.ModuleList(
            MLPBank(n_domains, widths, generator, ends_linear=True) for _ in range(n_own)
        )
        self.own_norm = PartitionedNorm(n_domains, n_own * config.expert_dim, config.norm)
        self.shared = nn.ModuleList(plain_mlp(widths, generator, ends_linear=True) for _ in range(n_shared))
        self.shared_norm = PartitionedNorm(1, n_shared * config.expert_dim, config.norm)
        n_gate_in = shape.n_in + shape.dim
        self.gate = plain_mlp((n_gate_in, self._n_experts), generator, ends_linear=True)
        self.mlp = plain_mlp((config.expert_dim, *config.hidden, shape.n_out), generator, ends_linear=True)

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        buckets = Buckets.of(domain_B, len(self.scale_ND))
        vector_BFV, domain_B = buckets.lined_up(vector_BFV), buckets.lined_up(domain_B)
        own_rows = buckets.in_order()
        # A row each of these, not a bucket: that is one gather, and one scatter of its gradient.
        scale_BD, shift_BD = (by_N.index_select(0, domain_B) for by_N in (self.scale_ND, self.shift_ND))
        x_BD = torch.addcmul(shift_BD, scale_BD, vector_BFV.flatten(1))
        own = torch.cat([expert(x_BD, own_rows) for expert in self.own], dim=1)
        shared = torch.cat([expert(x_BD) for expert in self.shared], dim=1)
        normed = [self.own_norm(own, domain_B), self.shared_norm(shared, torch.zeros_like(domain_B))]
        output_BEH = torch.cat(normed, dim=1).view(len(x_BD), self._n_experts, -1)
        logit_BE = self.gate(torch.cat([x_BD, vector_BFV[:, self._domain_feature]], dim=1))
        return buckets.put_back(self.mlp(mixture(output_BEH, logit_BE)))

    def adapt(self) -> None:
        for norm in (self.own_norm, self.shared_norm):
            norm.adapt()

    def fold(self) -> None:
        for norm in (self.own_norm, self.shared_norm):
            norm.fold()
