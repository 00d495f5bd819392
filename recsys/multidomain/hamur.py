"""HAMUR: a network a domain, with adapters of the domain whose core is made for the row.

After the last hidden layers ``h <- h + norm_d(ReLU(h U_d Q_i) V_d)``: ``U_d`` (H, R) and ``V_d`` (R, H)
are the domain's, both with a bias, ``norm_d`` its partitioned norm, and ``Q_i`` (R, R) comes from a
hyper-network that all domains share, run on the row's vectors, once for all adapters.

Li et al., "HAMUR: Hyper Adapter for Multi-Domain Recommendation", CIKM 2023, arXiv:2309.06217, in the
low-rank form with one core an adapter; ReLU inside is ours.

Axes: B rows, H columns of a hidden layer, R rank of an adapter.
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
from recsys.ranking.tower import check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class HamurConfig:
    """Widths of the domains' networks, and their adapters."""

    hidden: tuple[int, ...] = (128, 64, 32)
    """Hidden layers of each domain's network; at least one."""
    adapters: int = 1
    """How many of them, the last ones, an adapter follows; >= 1."""
    rank: int = 35
    """R; >= 1. A row's core has R * R numbers, which dominate the cost."""
    hyper: tuple[int, ...] = (64,)
    """Hidden layers of the hyper-network; at least one."""
    norm: PartitionedNormConfig = field(default_factory=PartitionedNormConfig)
    """Of each adapter's output."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        check_hidden(self.hyper)
        if not 1 <= self.adapters <= len(self.hidden) or self.rank < 1:
            raise ConfigError(
                f"want rank >= 1 and adapters 1 to {len(self.hidden)}, got {self.rank} and {self.adapters}"
            )

    def build(self, shape: NetShape, generator: torch.Generator) -> Hamur:
        """The net at its initial weights."""
        return Hamur(self, shape, generator)


class _Adapter(nn.Module):
    """Adds to a layer's output what its domain makes of it through the row's core."""

    def __init__(self, config: HamurConfig, n_domains: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = MLPBank(n_domains, (width, config.rank), generator, ends_linear=True)
        self.up = MLPBank(n_domains, (config.rank, width), generator, ends_linear=True)
        self.norm = PartitionedNorm(n_domains, width, config.norm)

    def forward(self, h_BH: Tensor, core_BRR: Tensor, buckets: Buckets, domain_B: Tensor) -> Tensor:
        inner_BR = torch.relu((self.down(h_BH, buckets).unsqueeze(1) @ core_BRR).squeeze(1))
        added_BH: Tensor = self.norm(self.up(inner_BR, buckets), domain_B)
        return h_BH + added_BH


class Hamur(DomainNet):
    """Each row through its domain's network and adapters."""

    trains_as_it_serves: ClassVar[bool] = False

    def __init__(self, config: HamurConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        n_domains = self._n_domains = shape.n_domains
        self._rank = config.rank
        # An adapter stands between two stages, hence all but the first are one layer.
        n_first = len(config.hidden) - config.adapters + 1
        first = (shape.n_in, *config.hidden[:n_first])
        last = (*config.hidden, shape.n_out)
        stages = [first, *(last[at : at + 2] for at in range(n_first - 1, len(config.hidden)))]
        self.stages = nn.ModuleList(
            MLPBank(n_domains, widths, generator, ends_linear=number == config.adapters)
            for number, widths in enumerate(stages)
        )
        self.adapters = nn.ModuleList(
            _Adapter(config, n_domains, widths[-1], generator) for widths in stages[:-1]
        )
        self.hyper = plain_mlp((shape.n_in, *config.hyper, config.rank**2), generator, ends_linear=True)

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        buckets = Buckets.of(domain_B, self._n_domains)
        h, own = buckets.lined_up(vector_BFV.flatten(1)), buckets.in_order()
        domain_B = buckets.lined_up(domain_B)
        core_BRR = self.hyper(h).view(-1, self._rank, self._rank)
        for number, stage in enumerate(self.stages):
            h = stage(h, own)
            if number < len(self.adapters):
                h = self.adapters[number](h, core_BRR, own, domain_B)
        return buckets.put_back(h)

    def adapt(self) -> None:
        for norm in self._norms():
            norm.adapt()

    def fold(self) -> None:
        for norm in self._norms():
            norm.fold()

    def _norms(self) -> list[PartitionedNorm]:
        return [module for module in self.modules() if isinstance(module, PartitionedNorm)]
