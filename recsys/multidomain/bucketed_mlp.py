"""Many MLPs of one shape, of which each row passes through one: rows are sorted into buckets first.

The cost of a batch is one network per row, however many networks there are. The obvious form, every
network on every row and then a pick, costs as many times more; the tests compare the two.

Axes: B rows, S networks, I columns into a layer, O out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsys.multidomain.grouped_linear import LayerOf, grouped_linear
from recsys.ranking.blocks import RELU_GAIN, glorot, plain_mlp

__all__ = ["RELU_GAIN", "Buckets", "MLPBank", "bucketed_mlp", "glorot", "plain_mlp"]

Network = Sequence[tuple[Tensor, Tensor]]
"""The weights (I, O) and biases (O,) of each layer."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Rows by network: bucket ``sets[j]`` holds the next ``sizes[j]`` rows in order; none is empty."""

    there_and_back: tuple[Tensor, Tensor] | None
    """Which row stands at each place of that order, and where each row stands in it, (B,) each; None: the
    rows lie in it already."""
    sets: list[int]
    sizes: list[int]

    @staticmethod
    def of(index_B: Tensor, n_sets: int) -> Buckets:
        """Buckets of rows whose network is ``index_B``, int64 in 0 to ``n_sets`` - 1."""
        # numpy: of two hundred rows, torch's calls take twice as long as the sort.
        set_B = index_B.numpy()
        counts = np.bincount(set_B, minlength=n_sets).tolist()
        sets = [one for one, count in enumerate(counts) if count]
        sizes = [counts[one] for one in sets]
        if len(sets) == 1:
            return Buckets(None, sets, sizes)
        order_B = np.argsort(set_B, kind="stable")
        place_B = np.empty_like(order_B)
        place_B[order_B] = np.arange(len(order_B))
        return Buckets((torch.from_numpy(order_B), torch.from_numpy(place_B)), sets, sizes)

    def lined_up(self, rows_BI: Tensor) -> Tensor:
        """The rows, (B, ...), bucket by bucket."""
        return rows_BI if self.there_and_back is None else _permuted(rows_BI, *self.there_and_back)

    def put_back(self, rows_BO: Tensor) -> Tensor:
        """Rows that lie bucket by bucket, in the order that they were in before they were lined up."""
        return rows_BO if self.there_and_back is None else _permuted(rows_BO, *self.there_and_back[::-1])

    def in_order(self) -> Buckets:
        """Buckets of the same rows once they are lined up, so that a net sorts once for all its banks."""
        return replace(self, there_and_back=None)


def bucketed_mlp(x_BI: Tensor, buckets: Buckets, layers: Sequence[LayerOf], *, ends_linear: bool) -> Tensor:
    """Each row through the network of its bucket, (B, O) in the rows' order, with ReLUs between layers.

    Without ``ends_linear`` a ReLU follows the last layer too.
    """
    if not torch.is_grad_enabled():
        networks = {one: [layer.of_set(one) for layer in layers] for one in buckets.sets}
        return bucketed_networks(x_BI, buckets, networks, ends_linear=ends_linear)
    h = buckets.lined_up(x_BI)
    for number, layer in enumerate(layers, start=1):
        h = grouped_linear(h, layer, buckets.sets, buckets.sizes)
        if number < len(layers) or not ends_linear:
            h = torch.relu_(h)
    return buckets.put_back(h)


def bucketed_networks(
    x_BI: Tensor, buckets: Buckets, networks: Mapping[int, Network], *, ends_linear: bool
) -> Tensor:
    """As ``bucketed_mlp``, of ready networks and without a gradient."""
    h = buckets.lined_up(x_BI)
    # A bucket at a time, not a layer: without gradients that is fewer calls, and those are what costs here.
    parts = [h] if len(buckets.sets) == 1 else torch.split(h, buckets.sizes)
    passed = [
        _passed(part, networks[one], ends_linear=ends_linear)
        for one, part in zip(buckets.sets, parts, strict=True)
    ]
    return buckets.put_back(passed[0] if len(passed) == 1 else torch.cat(passed))


def _passed(h: Tensor, network: Network, *, ends_linear: bool) -> Tensor:
    for number, (weight_IO, bias_O) in enumerate(network, start=1):
        h = torch.addmm(bias_O, h, weight_IO)
        if number < len(network) or not ends_linear:
            h = torch.relu_(h)
    return h


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

    def forward(self, x_BI: Tensor, index_B: Tensor | Buckets) -> Tensor:
        """Outputs, (B, O), of each row's own network: its index, int64, or the buckets that these make."""
        layers = [
            LayerOf(weight_SIO, bias_SO)
            for weight_SIO, bias_SO in zip(self.weights, self.biases, strict=True)
        ]
        buckets = index_B if isinstance(index_B, Buckets) else Buckets.of(index_B, self.n_sets)
        return bucketed_mlp(x_BI, buckets, layers, ends_linear=self.ends_linear)


def _permuted(rows_BI: Tensor, there_B: Tensor, back_B: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return rows_BI.index_select(0, there_B)
    moved_BI: Tensor = _Permuted.apply(rows_BI, there_B, back_B)  # type: ignore[no-untyped-call]
    return moved_BI


class _Permuted(torch.autograd.Function):
    """Rows in another order. torch would sum the gradient of an index, though no row is taken twice."""

    @staticmethod
    def forward(ctx: Any, rows_BI: Tensor, there_B: Tensor, back_B: Tensor) -> Tensor:
        ctx.save_for_backward(back_B)
        return rows_BI.index_select(0, there_B)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_BI: Tensor) -> tuple[Tensor, None, None]:
        (back_B,) = ctx.saved_tensors
        return g_BI.index_select(0, back_B), None, None
