"""Torch modules over an embedding table: rows in on forward, gradients out on backward.

The table is no parameter: backward hands it the gradient of every occurrence and the table applies
its own optimizer, so the dense optimizer must not know these rows. Keys travel in int64 tensors that
hold the bits of uint64 keys.

Axes: N keys of a batch, D weights of a row, F features, B examples; bags are feature-major, (F, B).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from recsys.errors import ConfigError, ShapeError
from recsys.table.table import EmbeddingTable, Keys

Pooling = Literal["sum", "mean"]


class _TableModule(nn.Module):
    """A module whose rows live in ``table``. One thread may run forward and backward at a time."""

    event_time_s: int | None
    """Event time of the batch, seconds since 1970; to be set before each backward."""

    def __init__(self, table: EmbeddingTable) -> None:
        super().__init__()
        self.table = table
        self.event_time_s = None

    def _rows(self, kjt: KeyedJaggedTensor) -> Tensor:
        """Row of each occurrence, (N, D); learns on backward only in training with gradients on."""
        keys_N = _as_keys(kjt.values())
        device = kjt.values().device
        if not (self.training and torch.is_grad_enabled()):
            return torch.from_numpy(self.table.lookup(keys_N)).to(device)
        # Without an input that wants a gradient, autograd would never call backward.
        anchor = torch.empty(0, device=device, requires_grad=True)
        # A copy: the caller may refill the batch's buffer before backward.
        rows_ND: Tensor = _LearnedRows.apply(anchor, self, keys_N.copy())  # type: ignore[no-untyped-call]
        return rows_ND


class PooledEmbeddings(_TableModule):
    """Pools each feature's rows over its bag. One thread may run forward and backward at a time.

    ``pooling`` says for each feature whether a bag is the sum or the mean of its rows; an empty bag
    is zeros. Training learns once per backward; eval mode and ``torch.no_grad()`` learn nothing.
    """

    def __init__(self, table: EmbeddingTable, pooling: Mapping[str, Pooling]) -> None:
        super().__init__(table)
        for feature, how in pooling.items():
            if how not in ("sum", "mean"):
                raise ConfigError(f"pooling of {feature!r} must be 'sum' or 'mean', got {how!r}")
        self.pooling = dict(pooling)

    def forward(self, kjt: KeyedJaggedTensor) -> KeyedTensor:
        """(B, F * D), the features in the order of ``kjt``.

        Raises ConfigError for a feature without a pooling and ShapeError for weighted or uneven bags.
        """
        features = kjt.keys()
        unknown = [feature for feature in features if feature not in self.pooling]
        if unknown:
            raise ConfigError(f"no pooling is set for {unknown}; it is set for {sorted(self.pooling)}")
        _check_plain(kjt)
        dim, n_bags = self.table.spec.dim, len(features) * kjt.stride()
        lengths_FB = kjt.lengths().long()
        bag_N = torch.repeat_interleave(
            torch.arange(n_bags, device=lengths_FB.device), lengths_FB, output_size=kjt.values().numel()
        )
        rows_ND = self._rows(kjt)
        bags_FBD = rows_ND.new_zeros(n_bags, dim).index_add(0, bag_N, rows_ND)
        bags_FBD = (bags_FBD / self._divisors(features, lengths_FB)).view(len(features), kjt.stride(), dim)
        values = bags_FBD.permute(1, 0, 2).reshape(kjt.stride(), -1)
        return KeyedTensor(keys=list(features), length_per_key=[dim] * len(features), values=values)

    def _divisors(self, features: list[str], lengths_FB: Tensor) -> Tensor:
        """What each bag's sum is divided by, (F * B, 1): 1, or the bag's length where mean is asked."""
        is_mean_F = torch.tensor([self.pooling[f] == "mean" for f in features], device=lengths_FB.device)
        count_FB = lengths_FB.view(len(features), -1).clamp(min=1)
        return torch.where(is_mean_F[:, None], count_FB, 1).reshape(-1, 1)


class SequenceEmbeddings(_TableModule):
    """Gives each feature's rows in order, unpooled. One thread may run forward and backward at a time.

    Training learns once per backward; eval mode and ``torch.no_grad()`` learn nothing.
    """

    def forward(self, kjt: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """By feature, a jagged tensor of (n, D) rows with the lengths of ``kjt``.

        Raises ShapeError for weighted or uneven bags.
        """
        _check_plain(kjt)
        rows_of_feature = torch.split(self._rows(kjt), kjt.length_per_key())
        lengths_FB = kjt.lengths().view(len(kjt.keys()), -1)
        return {
            feature: JaggedTensor(values=rows, lengths=lengths)
            for feature, rows, lengths in zip(kjt.keys(), rows_of_feature, lengths_FB, strict=True)
        }


class _LearnedRows(torch.autograd.Function):
    """Looks rows up on forward; its backward is the table's learn."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, module: _TableModule, keys_N: Keys) -> Tensor:
        ctx.module, ctx.keys_N = module, keys_N
        return torch.from_numpy(module.table.lookup(keys_N)).to(anchor.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, None, None]:
        module: _TableModule = ctx.module
        if module.event_time_s is None:
            raise ConfigError("event_time_s is not set; set it to the batch's event time before backward")
        grads_ND = grad_ND.to("cpu", torch.float32).contiguous().numpy()
        module.table.learn(ctx.keys_N, grads_ND, event_time_s=module.event_time_s)
        return grad_ND.new_zeros(0), None, None


def _as_keys(values_N: Tensor) -> Keys:
    if values_N.dtype != torch.int64:
        raise ShapeError(f"keys must be an int64 tensor, got {values_N.dtype}; do not cast keys, view them")
    return values_N.detach().cpu().contiguous().numpy().view(np.uint64)


def _check_plain(kjt: KeyedJaggedTensor) -> None:
    if kjt.weights_or_none() is not None:
        raise ShapeError("got a weighted KeyedJaggedTensor, want one without weights")
    if kjt.variable_stride_per_key():
        raise ShapeError("got features of different batch sizes, want one batch size for all")
