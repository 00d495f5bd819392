"""PLE: levels of experts that all domains share and experts of each domain, mixed by gates, then towers.

At each level a row of domain d passes through the shared experts S, on the shared input, and through
its domain's own P_d, on the domain's input. The domain's gate mixes P_d ∪ S into the next domain input;
the shared gate mixes into the next shared input. The first level takes the features as both inputs;
the last has no shared gate.

The paper's tasks all see every row, so that its shared gate takes the experts of all tasks. A row has
one domain: the shared gate here has a column for every expert of every domain, and its softmax runs
over those which the row passed through, P_d ∪ S. Anything more would cost N networks per row.

Axes: B examples, I columns into a level, E = P + S experts of a row, H columns of an expert's output.
Tang et al., "Progressive Layered Extraction (PLE)", RecSys 2020, doi 10.1145/3383313.3412236, with
domains for tasks.
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
class PLEConfig:
    """Levels, experts and towers."""

    levels: tuple[tuple[int, ...], ...] = ((128,), (64,))
    """Hidden layers of an expert at each level; at least one level, each of at least one layer."""
    shared_experts: int = 2
    """S, at each level; >= 1."""
    domain_experts: int = 1
    """P, for each domain at each level; >= 1."""
    tower: tuple[int, ...] = (32,)
    """Hidden layers of each domain's tower; at least one."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("levels must hold at least one level, got ()")
        for hidden in (*self.levels, self.tower):
            check_hidden(hidden)
        if min(self.shared_experts, self.domain_experts) < 1:
            raise ConfigError(
                "shared_experts and domain_experts must be >= 1, "
                f"got {self.shared_experts} and {self.domain_experts}"
            )

    def build(self, shape: NetShape, generator: torch.Generator) -> PLE:
        """The net at its initial weights."""
        return PLE(self, shape, generator)


class _SharedGate(nn.Module):
    """Logits of the experts that a row passed through, from the shared input. Like any nn.Module."""

    def __init__(self, n_in: int, config: PLEConfig, n_domains: int, generator: torch.Generator) -> None:
        super().__init__()
        self.own = MLPBank(n_domains, (n_in, config.domain_experts), generator, ends_linear=True)
        self.shared = plain_mlp((n_in, config.shared_experts), generator, ends_linear=True)

    def forward(self, shared_BI: Tensor, buckets: Buckets) -> Tensor:
        return torch.cat([self.own(shared_BI, buckets), self.shared(shared_BI)], dim=1)


class _Level(nn.Module):
    """Experts and the domains' gates over them; experts of the domain come first. Like any nn.Module."""

    def __init__(
        self, widths: tuple[int, ...], config: PLEConfig, n_domains: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        n_own, n_shared = config.domain_experts, config.shared_experts
        self.own = nn.ModuleList(
            MLPBank(n_domains, widths, generator, ends_linear=False) for _ in range(n_own)
        )
        self.shared = nn.ModuleList(plain_mlp(widths, generator) for _ in range(n_shared))
        self.gate = MLPBank(n_domains, (widths[0], n_own + n_shared), generator, ends_linear=True)

    def forward(self, own_BI: Tensor, shared_BI: Tensor, buckets: Buckets) -> tuple[Tensor, Tensor]:
        """What all experts give, (B, E, H), and the domain's mixture of it, (B, H)."""
        own = [expert(own_BI, buckets) for expert in self.own]
        output_BEH = torch.stack([*own, *(expert(shared_BI) for expert in self.shared)], dim=1)
        return output_BEH, mixture(output_BEH, self.gate(own_BI, buckets))


class PLE(DomainNet):
    """Each row through the levels, on its domain's side and the shared one, and its domain's tower."""

    def __init__(self, config: PLEConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        ends = [shape.n_in, *(hidden[-1] for hidden in config.levels)]
        n_domains = shape.n_domains
        self.levels = nn.ModuleList(
            _Level((n_in, *hidden), config, n_domains, generator)
            for n_in, hidden in zip(ends, config.levels, strict=False)
        )
        self.shared_gates = nn.ModuleList(
            _SharedGate(n_in, config, n_domains, generator) for n_in in ends[:-2]
        )
        widths = (ends[-1], *config.tower, shape.n_out)
        self.towers = MLPBank(n_domains, widths, generator, ends_linear=True)

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        buckets = Buckets.of(domain_B, self.towers.n_sets)
        own_BI = shared_BI = buckets.lined_up(vector_BFV.flatten(1))
        own = buckets.in_order()
        for number, level in enumerate(self.levels):
            output_BEH, own_BI = level(own_BI, shared_BI, own)
            if number < len(self.shared_gates):
                shared_BI = mixture(output_BEH, self.shared_gates[number](shared_BI, own))
        return buckets.put_back(self.towers(own_BI, own))
