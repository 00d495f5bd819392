"""PEPNet: a domain's towers behind gates, of the input by domain (EPNet) and of hidden layers by person.

A gate gives factors of 0 to 2, near 1 while its input is small: Gate(z) = 2 sigmoid(W₂ ReLU(W₁ z)).
EPNet: x ← x ⊙ Gate([domain's vector, x]). PPNet, after each hidden layer's ReLU:
h ← h ⊙ Gate_l([prior vectors, x]), where the priors are those of user, item and author, and x is what
EPNet gave. No gradient flows into x through a gate; it does into the domain's and the prior vectors.
All domains share the gates. A gate's hidden layer is a setting here; public code gives it as many
units as the gate has outputs.

Axes: B examples, D columns of x, T towers of a domain, Q = B * T pairs of example and tower, I columns
into a layer, H out of it, O outputs.
Chang et al., "PEPNet: Parameter and Embedding Personalized Network", KDD 2023, arXiv:2302.01115.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.multidomain.bucketed_mlp import Buckets, MLPBank, bucketed_mlp, plain_mlp
from recsys.multidomain.domain_net import DomainNet, NetShape
from recsys.multidomain.grouped_linear import LayerOf
from recsys.ranking.tower import check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class PEPNetConfig:
    """Towers, and which gates stand before and in them."""

    hidden: tuple[int, ...] = (128, 64, 32)
    """Of each tower; at least one."""
    gate_hidden: int = 64
    """Units of each gate's hidden layer; >= 1."""
    prior_features: tuple[int, ...] = ()
    """Places among F of user, item and author, without repeats; at least one if ``has_ppnet``."""
    has_epnet: bool = True
    """Whether the input is gated."""
    has_ppnet: bool = True
    """Whether the hidden layers are gated."""
    has_output_towers: bool = True
    """Whether each of O outputs is a task with towers and factors of its own (T = O), as in the paper.

    Otherwise a domain's one tower gives all outputs (T = 1), at the cost of one."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        if self.gate_hidden < 1:
            raise ConfigError(f"gate_hidden must be >= 1, got {self.gate_hidden}")
        places = self.prior_features
        if len(set(places)) < len(places) or min(places, default=0) < 0:
            raise ConfigError(f"prior_features must be different places >= 0, got {places}")
        if self.has_ppnet and not places:
            raise ConfigError("PPNet needs prior_features, got (); name some or set has_ppnet to False")

    def build(self, shape: NetShape, generator: torch.Generator) -> PEPNet:
        """The net at its initial weights. Raises ConfigError for a prior feature that is not among F."""
        return PEPNet(self, shape, generator)


class Gate(nn.Module):
    """Factors of 0 to 2 for ``n_out`` columns. Like any nn.Module."""

    def __init__(self, n_in: int, n_hidden: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = plain_mlp((n_in, n_hidden, n_out), generator, ends_linear=True)

    def forward(self, z_BI: Tensor) -> Tensor:
        return 2.0 * torch.sigmoid(self.mlp(z_BI))


class PEPNet(DomainNet):
    """Each row through the gate of its input and then its domain's towers, gated layer by layer."""

    def __init__(self, config: PEPNetConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        if max(config.prior_features, default=0) >= shape.n_features:
            raise ConfigError(
                f"prior_features must be 0 to {shape.n_features - 1}, got {config.prior_features}"
            )
        self._domain_feature, self._priors = shape.domain_feature, list(config.prior_features)
        self._n_towers = shape.n_out if config.has_output_towers else 1
        n_domain_in = shape.dim + shape.n_in
        self.input_gate = (
            Gate(n_domain_in, config.gate_hidden, shape.n_in, generator) if config.has_epnet else None
        )
        n_prior_in = len(config.prior_features) * shape.dim + shape.n_in
        self.hidden_gates = nn.ModuleList(
            Gate(n_prior_in, config.gate_hidden, self._n_towers * width, generator)
            for width in (config.hidden if config.has_ppnet else ())
        )
        widths = (shape.n_in, *config.hidden, shape.n_out // self._n_towers)
        self.towers = MLPBank(self._n_towers * shape.n_domains, widths, generator, ends_linear=True)

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        x_BD = vector_BFV.flatten(1)
        if self.input_gate is not None:
            domain_BV = vector_BFV[:, self._domain_feature]
            x_BD = x_BD * self.input_gate(torch.cat([domain_BV, x_BD.detach()], dim=1))
        prior_BI = torch.cat([vector_BFV[:, self._priors].flatten(1), x_BD.detach()], dim=1)
        return self._through_towers(x_BD, [gate(prior_BI) for gate in self.hidden_gates], domain_B)

    def _through_towers(self, x_BD: Tensor, factors: list[Tensor], domain_B: Tensor) -> Tensor:
        """Outputs, (B, O). A row stands T times in a row, once for each tower of its domain."""
        n_towers, n_rows = self._n_towers, len(x_BD)
        tower_T = torch.arange(n_towers, device=domain_B.device)
        index_Q = (domain_B.unsqueeze(1) * n_towers + tower_T).flatten()
        buckets = Buckets.of(index_Q, self.towers.n_sets)
        h_QH = x_BD.repeat_interleave(n_towers, dim=0) if n_towers > 1 else x_BD
        n_hidden = len(self.towers.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.towers.weights, self.towers.biases, strict=True)):
            layers = [LayerOf(weight, bias)]
            h_QH = bucketed_mlp(h_QH, buckets, layers, ends_linear=number == n_hidden)
            if number < len(factors):
                h_QH = h_QH * factors[number].reshape(h_QH.shape)
        return h_QH.reshape(n_rows, -1)
