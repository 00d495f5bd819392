"""One MLP for all domains: the domain is a feature like any other. The plainest peer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from recsys.multidomain.bucketed_mlp import plain_mlp
from recsys.multidomain.domain_net import DomainNet, NetShape
from recsys.ranking.tower import check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleNetConfig:
    """Widths of the one MLP."""

    hidden: tuple[int, ...] = (128, 64, 32)
    """Of its hidden layers; at least one."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)

    def build(self, shape: NetShape, generator: torch.Generator) -> SingleNet:
        """The net at its initial weights."""
        return SingleNet(self, shape, generator)


class SingleNet(DomainNet):
    """An MLP over all vectors side by side."""

    reads_domain: ClassVar[bool] = False

    def __init__(self, config: SingleNetConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = plain_mlp((shape.n_in, *config.hidden, shape.n_out), generator, ends_linear=True)

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        out_BO: Tensor = self.mlp(vector_BFV.flatten(1))
        return out_BO
