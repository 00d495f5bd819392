"""The parts that rankers are made of, as pure functions over tensors.

Axes: B examples of a batch, F features, T keys in all, K columns of a feature's vector, D = 1 + K columns
of a row, W = F * D columns of a pooled row, X columns of a cross layer, H columns of a hidden layer,
I columns into a layer, O out of it.
References: Guo et al., "DeepFM", IJCAI 2017, arXiv:1703.04247; Wang et al., "DCN V2", WWW 2021,
arXiv:2008.13535.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.errors import ShapeError
from recsys.features import Lengths

Mask = NDArray[np.bool_]

RELU_GAIN = math.sqrt(2.0)
"""Keeps the variance of activations through ReLUs; He et al., ICCV 2015."""


def pool_rows(rows_TD: Tensor, lengths_BF: Lengths, is_mean_F: Mask) -> Tensor:
    """Pooled rows, (B, F * D): the sum of each bag's rows, or their mean; an empty bag is zeros.

    Rows come example by example and feature by feature, as RaggedKeys holds their keys.
    """
    if len(rows_TD) == lengths_BF.size and (lengths_BF == 1).all():
        return rows_TD.view(len(lengths_BF), -1)
    bag_T = torch.from_numpy(np.repeat(np.arange(lengths_BF.size), lengths_BF.ravel()))
    bags_LD = rows_TD.new_zeros(lengths_BF.size, rows_TD.shape[1]).index_add_(0, bag_T, rows_TD)
    divisor_BF = np.where(is_mean_F, np.maximum(lengths_BF, 1), 1).astype(np.float32)
    bags_LD /= torch.from_numpy(divisor_BF.reshape(-1, 1))
    return bags_LD.view(len(lengths_BF), -1)


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


def glorot(n_in: int, n_out: int, generator: torch.Generator, *, gain: float = RELU_GAIN) -> Tensor:
    """Glorot-uniform weights, (I, O)."""
    return nn.init.xavier_uniform_(torch.empty(n_in, n_out), gain=gain, generator=generator)


def plain_mlp(
    widths: Sequence[int], generator: torch.Generator, *, ends_linear: bool = False
) -> nn.Sequential:
    """Layers of these widths, input first, with ReLUs between them, and behind unless ``ends_linear``.

    Weights are drawn with the gain of ReLUs. Biases are zero.
    """
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layer = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu")
        layer.weight = nn.Parameter(glorot(n_in, n_out, generator).T.contiguous())
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*(layers[:-1] if ends_linear else layers))


def mixture(output_BEH: Tensor, logit_BE: Tensor) -> Tensor:
    """Outputs of E experts, weighed by the softmax of a gate's logits, (B, H)."""
    # A product of small matrices for each row would take four times as long on a CPU.
    return (torch.softmax(logit_BE, dim=1).unsqueeze(2) * output_BEH).sum(dim=1)
