"""M2M: experts behind a transformer layer, mixed and read out by weights made from the scenario.

A meta unit is a two-layer net whose weights a hyper-network makes from the scenario's vector s:
meta(z; s) = W₂(s) LeakyReLU(W₁(s) z + b₁(s)) + b₂(s), each of these linear in s. s is a layer over the
domain's own vector, so no weight belongs to a domain and the domain's index is not read: an unseen
domain is served by whatever vector its feature is given.

Fields attend to each other in one transformer layer; K experts read all of them; for task t they are
weighed by the softmax over k of a_k = vᵀ meta([expert_k, task_t]; s), and the mixture passes through
residual tower layers h ← LeakyReLU(meta(h; s) + h) and a linear read-out.
Ours: the constant part of each W(s) starts as an ordinary layer's weights, except that a tower layer's
W₂(s) starts at 0, hence the tower as what it adds to; otherwise a new net is sure of itself for no
reason. A meta unit's hidden layer is as wide as its input.

Axes: B examples, F fields, V columns of a field's vector, K experts, E columns of an expert's output,
T tasks, Z columns into a meta unit, M rows of one example (tasks, or pairs of task and expert).
Zhang et al., "Leaving No One Behind: A Multi-Scenario Multi-Task Meta Learning Approach for Advertiser
Modeling", WSDM 2022, arXiv:2201.06814.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from recsys.errors import ConfigError
from recsys.multidomain.bucketed_mlp import glorot, plain_mlp
from recsys.multidomain.domain_net import DomainNet, NetShape

SLOPE = 0.1
"""Of every LeakyReLU below zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class M2MConfig:
    """Transformer layer, experts and tower."""

    heads: int = 2
    """Attention heads over the fields; >= 1, and a divisor of V."""
    feed_forward: int = 32
    """Hidden units of the transformer layer's second half; >= 1."""
    experts: int = 4
    """K; >= 1."""
    expert_dim: int = 16
    """E, also the width of s, of a task's vector and of the tower; >= 1."""
    tower_layers: int = 1
    """Residual layers of the tower; >= 1."""
    has_output_towers: bool = True
    """Whether each of the outputs is a task with its own vector (T = O), as in the paper.

    Otherwise one task gives all outputs (T = 1), at the cost of one."""

    def __post_init__(self) -> None:
        sizes = (self.heads, self.feed_forward, self.experts, self.expert_dim, self.tower_layers)
        if min(sizes) < 1:
            raise ConfigError(f"want sizes >= 1, got {self}")

    def build(self, shape: NetShape, generator: torch.Generator) -> M2M:
        """The net at its initial weights. Raises ConfigError unless ``heads`` divides V."""
        if shape.dim % self.heads:
            raise ConfigError(f"heads must divide the vectors' dim, {shape.dim}; got {self.heads}")
        return M2M(self, shape, generator)


class FieldAttention(nn.Module):
    """One transformer encoder layer over fields, normalised after each half. Like any nn.Module."""

    def __init__(self, dim: int, config: M2MConfig, generator: torch.Generator) -> None:
        super().__init__()
        self._heads = config.heads
        self.query, self.key, self.value, self.out = (
            plain_mlp((dim, dim), generator, ends_linear=True) for _ in range(4)
        )
        self.feed_forward = plain_mlp((dim, config.feed_forward, dim), generator, ends_linear=True)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, vector_BFV: Tensor) -> Tensor:
        def by_head(x_BFV: Tensor) -> Tensor:
            return x_BFV.view(*x_BFV.shape[:2], self._heads, -1).transpose(1, 2)

        query, key, value = (by_head(made(vector_BFV)) for made in (self.query, self.key, self.value))
        score = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        attended_BFV = (torch.softmax(score, dim=3) @ value).transpose(1, 2).flatten(2)
        x_BFV = self.norm_attention(vector_BFV + self.out(attended_BFV))
        normed_BFV: Tensor = self.norm_feed_forward(x_BFV + self.feed_forward(x_BFV))
        return normed_BFV


class MetaLayer(nn.Module):
    """A linear layer, Z to Z columns, with weights made from s for each example. Like any nn.Module."""

    def __init__(self, n_scenario: int, n_columns: int, generator: torch.Generator) -> None:
        super().__init__()
        self._n_columns = n_columns
        self.weight = nn.Linear(n_scenario, n_columns * n_columns, device="meta").to_empty(device="cpu")
        self.weight.weight = nn.Parameter(glorot(n_scenario, n_columns**2, generator).T.contiguous())
        self.weight.bias = nn.Parameter(glorot(n_columns, n_columns, generator).flatten())
        self.bias = plain_mlp((n_scenario, n_columns), generator, ends_linear=True)

    def forward(self, z_BMZ: Tensor, scenario_BE: Tensor) -> Tensor:
        weight_BZZ = self.weight(scenario_BE).view(-1, self._n_columns, self._n_columns)
        return torch.baddbmm(self.bias(scenario_BE).unsqueeze(1), z_BMZ, weight_BZZ)


class MetaUnit(nn.Module):
    """meta(z; s), (B, M, Z), for M rows z of each example; 0 at s = 0 at first if ``starts_at_zero``.

    Like any nn.Module.
    """

    def __init__(
        self, n_scenario: int, n_columns: int, generator: torch.Generator, *, starts_at_zero: bool = False
    ) -> None:
        super().__init__()
        self.first = MetaLayer(n_scenario, n_columns, generator)
        self.second = MetaLayer(n_scenario, n_columns, generator)
        if starts_at_zero:
            nn.init.zeros_(self.second.weight.bias)

    def forward(self, z_BMZ: Tensor, scenario_BE: Tensor) -> Tensor:
        h_BMZ = leaky_relu(self.first(z_BMZ, scenario_BE), SLOPE)
        out_BMZ: Tensor = self.second(h_BMZ, scenario_BE)
        return out_BMZ


class M2M(DomainNet):
    """Each row through all experts, their mixture for each task, and that task's tower."""

    reads_domain: ClassVar[bool] = False

    def __init__(self, config: M2MConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        self._domain_feature, width = shape.domain_feature, config.expert_dim
        n_tasks = shape.n_out if config.has_output_towers else 1
        self.transformer = FieldAttention(shape.dim, config, generator)
        self.experts = nn.ModuleList(
            plain_mlp((shape.n_in, width), generator, ends_linear=True) for _ in range(config.experts)
        )
        self.scenario = plain_mlp((shape.dim, width), generator, ends_linear=True)
        self.task_TE = nn.Parameter(glorot(n_tasks, width, generator))
        self.attention = MetaUnit(width, 2 * width, generator)
        self.score_Z1 = nn.Parameter(glorot(2 * width, 1, generator))
        self.tower = nn.ModuleList(
            MetaUnit(width, width, generator, starts_at_zero=True) for _ in range(config.tower_layers)
        )
        self.read_TEO = nn.Parameter(
            torch.stack([glorot(width, shape.n_out // n_tasks, generator) for _ in range(n_tasks)])
        )
        self.read_O = nn.Parameter(torch.zeros(shape.n_out))

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        scenario_BE = leaky_relu(self.scenario(vector_BFV[:, self._domain_feature]), SLOPE)
        x_BD = self.transformer(vector_BFV).flatten(1)
        output_BKE = leaky_relu(torch.stack([expert(x_BD) for expert in self.experts], dim=1), SLOPE)
        h_BTE = self._shares(output_BKE, scenario_BE) @ output_BKE
        for unit in self.tower:
            h_BTE = leaky_relu(unit(h_BTE, scenario_BE) + h_BTE, SLOPE)
        out_BTO = (h_BTE.unsqueeze(2) @ self.read_TEO).squeeze(2)
        return out_BTO.flatten(1) + self.read_O

    def _shares(self, output_BKE: Tensor, scenario_BE: Tensor) -> Tensor:
        """Weight of each expert for each task, (B, T, K); they add up to 1 over K."""
        (n_tasks, width), (n_rows, n_experts, _) = self.task_TE.shape, output_BKE.shape
        pairs = (n_rows, n_tasks, n_experts, width)
        z_BTKZ = torch.cat(
            [output_BKE.unsqueeze(1).expand(pairs), self.task_TE.unsqueeze(1).expand(pairs)], dim=3
        )
        meta_BMZ = self.attention(z_BTKZ.flatten(1, 2), scenario_BE)
        logit_BTK = (meta_BMZ @ self.score_Z1).view(pairs[:3])
        return torch.softmax(logit_BTK, dim=2)
