"""The parts that rankers are made of, as pure functions over tensors.

Axes: B examples of a batch, F features, K columns of a feature's vector, W = F * (1 + K) columns of a
pooled row, X columns of a cross layer, H columns of a hidden layer.
References: Guo et al., "DeepFM", IJCAI 2017, arXiv:1703.04247; Wang et al., "DCN V2", WWW 2021,
arXiv:2008.13535.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.errors import ShapeError


def split_pooled(pooled_BW: Tensor, n_features: int) -> tuple[Tensor, Tensor]:
    """(wide_BF, vector_BFK): each feature's first column, and the columns behind it.

    Raises ShapeError unless W is a multiple of ``n_features`` that leaves K >= 1.
    """
    if pooled_BW.ndim != 2 or pooled_BW.shape[1] % n_features or pooled_BW.shape[1] < 2 * n_features:
        raise ShapeError(f"want (B, {n_features} * (1 + K)) pooled rows, got {tuple(pooled_BW.shape)}")
    pooled_BFD = pooled_BW.view(len(pooled_BW), n_features, -1)
    return pooled_BFD[..., 0], pooled_BFD[..., 1:]


def fm_logit(vector_BFK: Tensor) -> Tensor:
    """Sum of the dot products of all pairs of two features, (B,). DeepFM eq. 2, without its wide part.

    Σ_{f<g} v_f · v_g = ½ Σ_k ((Σ_f v_fk)² - Σ_f v_fk²): linear in F, not quadratic.
    """
    total_BK = vector_BFK.sum(dim=1)
    return 0.5 * (total_BK.square().sum(dim=1) - vector_BFK.square().sum(dim=(1, 2)))


def cross(first_BX: Tensor, layer_BX: Tensor, mixed_BX: Tensor) -> Tensor:
    """The next cross layer, (B, X): x₀ ⊙ (W xₗ + b) + xₗ, given W xₗ + b as ``mixed_BX``. DCN V2 eq. 1."""
    return torch.addcmul(layer_BX, first_BX, mixed_BX)


def linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer of Glorot-uniform weights and zero biases, drawn from ``generator`` alone."""
    # Made without storage first: Linear's own initial draw would come from the global generator.
    layer = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(n_in: int, hidden: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers of the widths ``hidden``, each followed by a ReLU; (B, n_in) to (B, hidden[-1])."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise([n_in, *hidden]):
        layers += [linear(width_in, width_out, generator), nn.ReLU()]
    return nn.Sequential(*layers)
