"""Shared-bottom: one MLP that all domains share, and a small tower for each of them.

Caruana, "Multitask Learning", Machine Learning 28, 1997, with domains for tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.multidomain.bucketed_mlp import MLPBank, plain_mlp
from recsys.multidomain.domain_net import DomainNet, NetShape
from recsys.ranking.tower import check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedBottomConfig:
    """Widths of the shared part and of a domain's tower."""

    hidden: tuple[int, ...] = (128, 64)
    """Of the shared MLP; at least one."""
    tower: tuple[int, ...] = (32,)
    """Hidden layers of each domain's tower; at least one."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        check_hidden(self.tower)

    def build(self, shape: NetShape, generator: torch.Generator) -> SharedBottom:
        """The net at its initial weights."""
        return SharedBottom(self, shape, generator)


class SharedBottom(DomainNet):
    """Each row through the shared MLP, then through its domain's tower."""

    def __init__(self, config: SharedBottomConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        self.bottom = plain_mlp((shape.n_in, *config.hidden), generator)
        widths = (config.hidden[-1], *config.tower, shape.n_out)
        self.towers = MLPBank(shape.n_domains, widths, generator, ends_linear=True)

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        out_BO: Tensor = self.towers(self.bottom(vector_BFV.flatten(1)), domain_B)
        return out_BO
