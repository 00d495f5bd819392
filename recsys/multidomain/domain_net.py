"""What every multi-domain model is: a net from a row's vectors and its domain to output columns.

The embedding rows are looked up and pooled before, task heads and the wide sum are added behind
(``tower.py``), so the models differ in their nets alone. All nets start from the same initialiser.

Axes: B examples, F features, V columns of a feature's vector, D = F * V, N domains, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class NetShape:
    """What a net is built for."""

    n_features: int
    """F; >= 1."""
    dim: int
    """V; >= 1."""
    n_out: int
    """O; >= 1."""
    n_domains: int
    """N, the last of which stands for any domain that is not known; >= 1."""
    domain_feature: int
    """Place of the domain's own feature among F."""

    def __post_init__(self) -> None:
        if min(self.n_features, self.dim, self.n_out, self.n_domains) < 1:
            raise ConfigError(f"want sizes >= 1, got {self}")
        if not 0 <= self.domain_feature < self.n_features:
            raise ConfigError(f"domain_feature must be 0 to {self.n_features - 1}, got {self.domain_feature}")

    @property
    def n_in(self) -> int:
        """D, columns of all vectors side by side."""
        return self.n_features * self.dim


class DomainNet(nn.Module):
    """Outputs of rows from their vectors. Any number of callers of forward in evaluation, one in training.

    In evaluation an output depends on its own row and the state alone. A forward pass never changes
    state, in training neither: what moves with the data (centres, running statistics) is noted there
    and folded in by ``adapt``, once the step that the pass was for has been taken.
    """

    trains_as_it_serves: ClassVar[bool] = True
    """Whether a forward pass in training gives what evaluation gives."""

    reads_domain: ClassVar[bool] = True
    """Whether outputs depend on the domains that are given; a domain's own vector is a feature."""

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        """Outputs, (B, O), without an activation; ``domain_B`` holds int64 in 0 to N - 1."""
        raise NotImplementedError

    def adapt(self) -> None:
        """Fold in what the last forward pass in training noted, if it has not been yet."""

    def fold(self) -> None:
        """Work out ahead what serving needs of weights that will change no more."""


class DomainNetConfig(Protocol):
    """Settings from which the same net can be built anywhere."""

    def build(self, shape: NetShape, generator: torch.Generator) -> DomainNet:
        """A net at its initial weights: the same bits from a generator in the same state."""
