"""A linear layer of many sets of weights, of which each bucket of rows passes its own.

torch has no such layer for the CPU. Written with its parts, ``split``, a product a bucket and ``cat``,
outputs and gradients are made one by one in new memory and then put together: a seventh of the time of
a thousand rows through a dozen sets. Here all goes where it belongs at once.

Axes: B rows, S sets, I columns into the layer, O out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Parts = Sequence[tuple[int, slice]]
"""Each bucket's set and rows."""


@dataclass(frozen=True, slots=True)
class LayerOf:
    """One layer's weights and biases by set."""

    weight_SIO: Tensor
    bias_SO: Tensor
    shared_IO: Tensor | None = None
    """What every set's weights are multiplied by, element by element; None: 1."""

    def of_set(self, one: int) -> tuple[Tensor, Tensor]:
        """The weights (I, O) and biases (O,) by which a set's rows pass."""
        own_IO = self.weight_SIO[one]
        return own_IO if self.shared_IO is None else self.shared_IO * own_IO, self.bias_SO[one]


def grouped_linear(x_BI: Tensor, layer: LayerOf, sets: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Bucket j, the next ``sizes[j]`` rows, through set ``sets[j]``, (B, O); no set is there twice."""
    ends = list(accumulate(sizes))
    parts = [(one, slice(end - size, end)) for one, size, end in zip(sets, sizes, ends, strict=True)]
    given = (x_BI, layer.weight_SIO, layer.bias_SO, layer.shared_IO)
    out_BO: Tensor = _GroupedLinear.apply(parts, *given)  # type: ignore[no-untyped-call]
    return out_BO


class _GroupedLinear(torch.autograd.Function):
    """``_outputs`` with its gradient, which can be taken once."""

    @staticmethod
    def forward(ctx: Any, parts: Parts, x_BI: Tensor, *of_layer: Tensor) -> Tensor:
        layer = LayerOf(*of_layer)
        ctx.save_for_backward(x_BI, layer.weight_SIO, layer.shared_IO)
        ctx.parts = parts
        return _outputs(x_BI, layer, parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_BO: Tensor) -> tuple[Tensor | None, ...]:
        x_BI, weight_SIO, shared_IO = ctx.saved_tensors
        # Sets without rows take no part below.
        new = torch.empty_like if len(ctx.parts) == len(weight_SIO) else torch.zeros_like
        g_weight_SIO, g_bias_SO = new(weight_SIO), new(weight_SIO[:, 0])
        g_shared_IO = None if shared_IO is None else torch.zeros_like(shared_IO)
        g_x_BI = torch.empty_like(x_BI) if ctx.needs_input_grad[1] else None
        product_IO = weight_SIO.new_empty(weight_SIO.shape[1:])
        for one, rows in ctx.parts:
            g_NO, used_IO = g_BO[rows], weight_SIO[one]
            torch.sum(g_NO, dim=0, out=g_bias_SO[one])
            if g_shared_IO is None:
                torch.mm(x_BI[rows].T, g_NO, out=g_weight_SIO[one])
            else:
                torch.mm(x_BI[rows].T, g_NO, out=product_IO)
                torch.mul(product_IO, shared_IO, out=g_weight_SIO[one])
                g_shared_IO.addcmul_(product_IO, used_IO)
                used_IO = torch.mul(shared_IO, used_IO, out=product_IO)
            if g_x_BI is not None:
                torch.mm(g_NO, used_IO.T, out=g_x_BI[rows])
        return None, g_x_BI, g_weight_SIO, g_bias_SO, g_shared_IO


def _outputs(x_BI: Tensor, layer: LayerOf, parts: Parts) -> Tensor:
    weight_SIO, bias_SO, shared_IO = layer.weight_SIO, layer.bias_SO, layer.shared_IO
    out_BO = x_BI.new_empty(len(x_BI), weight_SIO.shape[2])
    # One product at a time, which stays in the cache until its rows have passed it.
    product_IO = None if shared_IO is None else torch.empty_like(shared_IO)
    for one, rows in parts:
        used_IO = weight_SIO[one]
        if shared_IO is not None:
            used_IO = torch.mul(shared_IO, used_IO, out=product_IO)
        torch.addmm(bias_SO[one], x_BI[rows], used_IO, out=out_BO[rows])
    return out_BO
