"""Many MLPs of one shape, of which each row passes through one: rows are sorted into buckets first.

The cost of a batch is one network per row, however many networks there are. The obvious form, every
network on every row and then a pick, costs as many times more; the tests compare the two.

Axes: B rows, S networks, I columns into a layer, O out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from recsys.ranking.blocks import RELU_GAIN, glorot, plain_mlp

__all__ = ["RELU_GAIN", "Buckets", "LayerOf", "MLPBank", "bucketed_mlp", "glorot", "plain_mlp"]


@dataclass(frozen=True, slots=True)
class Buckets:
    """Rows by network: bucket ``sets[j]`` holds the next ``sizes[j]`` of ``order_B``; none is empty."""

    order_B: Tensor
    place_B: Tensor
    """Where each row stands in that order."""
    sets: list[int]
    sizes: list[int]

    @staticmethod
    def of(index_B: Tensor, n_sets: int) -> Buckets:
        """Buckets of rows whose network is ``index_B``, int64 in 0 to ``n_sets`` - 1."""
        order_B = torch.argsort(index_B, stable=True)
        place_B = torch.empty_like(order_B)
        place_B[order_B] = torch.arange(len(order_B), device=order_B.device)
        counts = torch.bincount(index_B, minlength=n_sets).tolist()
        sets = [one for one, count in enumerate(counts) if count]
        return Buckets(order_B, place_B, sets, [counts[one] for one in sets])


@dataclass(frozen=True, slots=True)
class LayerOf:
    """One layer's weights (I, O) and biases (O,) by network."""

    weight_S: Sequence[Tensor]
    bias_S: Sequence[Tensor]


def bucketed_mlp(x_BI: Tensor, buckets: Buckets, layers: Sequence[LayerOf], *, ends_linear: bool) -> Tensor:
    """Each row through the network of its bucket, (B, O) in the rows' order, with ReLUs between layers.

    Without ``ends_linear`` a ReLU follows the last layer too.
    """
    h = x_BI if len(buckets.sets) == 1 else x_BI[buckets.order_B]
    for number, layer in enumerate(layers, start=1):
        parts = torch.split(h, buckets.sizes)
        h = torch.cat(
            [
                torch.addmm(layer.bias_S[one], part, layer.weight_S[one])
                for one, part in zip(buckets.sets, parts, strict=True)
            ]
        )
        if number < len(layers) or not ends_linear:
            h = torch.relu(h)
    return h if len(buckets.sets) == 1 else h[buckets.place_B]


class MLPBank(nn.Module):
    """``n_sets`` MLPs of the same ``widths`` (input first), each drawn by itself. Like any nn.Module."""

    def __init__(
        self, n_sets: int, widths: Sequence[int], generator: torch.Generator, *, ends_linear: bool
    ) -> None:
        super().__init__()
        self.n_sets, self.ends_linear = n_sets, ends_linear
        self.weights = nn.ParameterList(
            nn.Parameter(torch.stack([glorot(n_in, n_out, generator) for _ in range(n_sets)]))
            for n_in, n_out in pairwise(widths)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n_sets, n_out)) for n_out in widths[1:])

    def forward(self, x_BI: Tensor, index_B: Tensor) -> Tensor:
        """Outputs, (B, O), of each row's own network."""
        # One unbind, not an index per network: the gradient is then put together once.
        layers = [
            LayerOf(weight.unbind(0), bias.unbind(0))
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]
        return bucketed_mlp(x_BI, Buckets.of(index_B, self.n_sets), layers, ends_linear=self.ends_linear)
