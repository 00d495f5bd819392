"""AdaSparse: one MLP, of which each domain keeps some neurons and scales them.

Before each layer a pruner looks at the domain's vector ``e`` and the layer's input ``h`` and gates it:
``v = beta * sigmoid(alpha * (W [e, h] + c))``, ``h <- h * v`` where ``v > epsilon``, else 0. ``alpha``
grows with the steps, so that gates close for good or open. The domain's own vector is not pruned.

Yang et al., "AdaSparse: Learning Adaptively Sparse Structures for Multi-Domain Click-Through Rate
Prediction", CIKM 2022, arXiv:2206.13108, its fused form of gates. Its loss term that steers the share
of pruned neurons is left out; that ``alpha`` stops growing is ours, since a stream does not end.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.multidomain.bucketed_mlp import plain_mlp
from recsys.multidomain.domain_net import DomainNet, NetShape
from recsys.ranking.tower import check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaSparseConfig:
    """Widths of the MLP and the form of its gates."""

    hidden: tuple[int, ...] = (128, 64, 32)
    """Of its hidden layers; at least one."""
    beta: float = 2.0
    """The most that a gate multiplies by; > 0. At 2 a gate on zero input is 1."""
    epsilon: float = 1e-2
    """A gate at or below is closed; >= 0 and under ``beta``."""
    alpha_start: float = 1.0
    """Steepness of gates at first; > 0."""
    alpha_growth: float = 1e-4
    """Added to the steepness a step; >= 0."""
    alpha_end: float = 5.0
    """Steepness at which growth ends; >= ``alpha_start``."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        if not 0.0 <= self.epsilon < self.beta:
            raise ConfigError(f"want 0 <= epsilon < beta, got {self.epsilon} and {self.beta}")
        if not 0.0 < self.alpha_start <= self.alpha_end or not self.alpha_growth >= 0.0:
            raise ConfigError(f"want 0 < alpha_start <= alpha_end and alpha_growth >= 0, got {self}")

    def build(self, shape: NetShape, generator: torch.Generator) -> AdaSparse:
        """The net at its initial weights. Raises ConfigError without a feature besides the domain's."""
        return AdaSparse(self, shape, generator)


def gate(score_BH: Tensor, alpha: Tensor, *, beta: float, epsilon: float) -> Tensor:
    """What each neuron is multiplied by, (B, H): exactly 0, or between ``epsilon`` and ``beta``."""
    value_BH = beta * torch.sigmoid(alpha * score_BH)
    return torch.where(value_BH > epsilon, value_BH, 0.0)


class AdaSparse(DomainNet):
    """An MLP whose layers' inputs are gated by domain and row."""

    steps: Tensor

    reads_domain: ClassVar[bool] = False

    def __init__(self, config: AdaSparseConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        if shape.n_features < 2:
            raise ConfigError("AdaSparse prunes the features besides the domain's, but there is none")
        self._config, self._domain_feature = config, shape.domain_feature
        widths = (shape.n_in, *config.hidden, shape.n_out)
        self.layers = nn.ModuleList(
            plain_mlp(layer, generator, ends_linear=number == len(config.hidden))
            for number, layer in enumerate(pairwise(widths))
        )
        gated = (shape.n_in - shape.dim, *config.hidden)
        self.pruners = nn.ModuleList(
            plain_mlp((shape.dim + width, width), generator, ends_linear=True) for width in gated
        )
        self.register_buffer("steps", torch.zeros(1))
        self._has_stepped = False

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        at = self._domain_feature
        own_BV = vector_BFV[:, at]
        h = torch.cat([vector_BFV[:, :at], vector_BFV[:, at + 1 :]], dim=1).flatten(1)
        for number, (pruner, layer) in enumerate(zip(self.pruners, self.layers, strict=True)):
            score = pruner(torch.cat([own_BV, h], dim=1))
            h = h * gate(score, self.alpha(), beta=self._config.beta, epsilon=self._config.epsilon)
            h = layer(h if number else torch.cat([own_BV, h], dim=1))
        if self.training and torch.is_grad_enabled():
            self._has_stepped = True
        return h

    def alpha(self) -> Tensor:
        """Steepness of the gates after the steps taken so far, (1,)."""
        config = self._config
        return (config.alpha_start + config.alpha_growth * self.steps).clamp(max=config.alpha_end)

    def adapt(self) -> None:
        if self._has_stepped:
            self._has_stepped = False
            self.steps += 1.0
