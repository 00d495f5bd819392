"""Torch modules over an embedding table: rows in on forward, gradients out on backward.

The table is no parameter: backward hands it the gradient of every bag or occurrence and the table
applies its own optimizer, so the dense optimizer must not know these rows. Keys travel in int64 tensors
that hold the bits of uint64 keys.

Under DistributedDataParallel each rank has a table of its own. Without ``ranks`` it learns from that
rank's examples alone; with them, each rank's table learns from the examples of all ranks, in order of
rank, along the mean of their gradients as dense weights do: tables that begin alike stay alike bit for bit.

Axes: N keys of a batch, D weights of a row, F features, B examples; bags are feature-major, (F, B).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from recsys.errors import ConfigError
from recsys.table.jagged import JaggedKeys
from recsys.table.ranks import Ranks
from recsys.table.table import Bags, EmbeddingTable, Floats, Keys

Pooling = Literal["sum", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PooledPart:
    """What one table pools of one batch: F features side by side."""

    table: EmbeddingTable
    dim: int
    """D of the table."""
    keys_N: Keys
    bags: Bags
    n_features: int

    @property
    def width(self) -> int:
        """Columns of the pooled rows, F * D."""
        return self.n_features * self.dim


class TableModule(nn.Module):
    """A module whose rows live in tables. One thread may run forward and backward at a time."""

    event_time_s: int | None
    """Event time of the batch, seconds since 1970; to be set before each backward."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        super().__init__()
        self.event_time_s = None
        self._ranks = ranks

    def pooled(self, parts: Sequence[PooledPart], n_examples: int, device: torch.device) -> Tensor:
        """The parts' bags side by side, (B, sum of widths); learns on backward where ``learns``."""
        if not self.learns:
            return _pooled(parts, n_examples).to(device)
        pooled_BW: Tensor = _Pooled.apply(_anchor(device), self, parts, n_examples)  # type: ignore[no-untyped-call]
        return pooled_BW

    @property
    def learns(self) -> bool:
        """Whether a forward pass now would learn on its backward: in training, with gradients on."""
        return self.training and torch.is_grad_enabled()

    def event_time_of(self, table: EmbeddingTable) -> int:
        """What a gradient for this table is dated. Raises ConfigError where nobody has said."""
        if self.event_time_s is None:
            raise ConfigError("event_time_s is not set; set it to the batch's event time before backward")
        return self.event_time_s

    def learn(self, table: EmbeddingTable, keys_N: Keys, bags: Bags | None, grads: Floats) -> None:
        """One step of a table along the gradient of each bag or, without bags, of each key."""
        event_time_s = self.event_time_of(table)
        if self._ranks is None:
            if bags is None:
                table.learn(keys_N, grads, event_time_s=event_time_s)
            else:
                table.learn_bags(keys_N, bags, grads, event_time_s=event_time_s)
            return
        # One key is a bag of its own.
        lengths = np.ones(len(keys_N), np.int64) if bags is None else np.diff(bags.offsets)
        if bags is not None and bags.scale_B is not None:
            grads = grads * bags.scale_B[:, None]
        keys_N, lengths, grads, times = self._ranks.joined([keys_N, lengths, grads, np.array([event_time_s])])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        mean = np.full(len(lengths), 1.0 / self._ranks.size, dtype=np.float32)
        table.learn_bags(keys_N, Bags(offsets=offsets, scale_B=mean), grads, event_time_s=int(times.max()))


class PooledEmbeddings(TableModule):
    """Pools each feature's rows over its bag. One thread may run forward and backward at a time.

    ``pooling`` says for each feature whether a bag is the sum or the mean of its rows; an empty bag
    is zeros. Training learns once per backward; eval mode and ``torch.no_grad()`` learn nothing.
    """

    def __init__(
        self, table: EmbeddingTable, pooling: Mapping[str, Pooling], ranks: Ranks | None = None
    ) -> None:
        super().__init__(ranks)
        self.table = table
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
        jagged = JaggedKeys.of(kjt)
        part = pooled_part(self.table, jagged, [self.pooling[feature] for feature in features])
        values_BW = self.pooled([part], jagged.n_examples, kjt.values().device)
        return KeyedTensor(
            keys=list(features), length_per_key=[self.table.spec.dim] * len(features), values=values_BW
        )


class SequenceEmbeddings(TableModule):
    """Gives each feature's rows in order, unpooled. One thread may run forward and backward at a time.

    Training learns once per backward; eval mode and ``torch.no_grad()`` learn nothing.
    """

    def __init__(self, table: EmbeddingTable, ranks: Ranks | None = None) -> None:
        super().__init__(ranks)
        self.table = table

    def forward(self, kjt: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """By feature, a jagged tensor of (n, D) rows with the lengths of ``kjt``.

        Raises ShapeError for weighted or uneven bags.
        """
        jagged = JaggedKeys.of(kjt)
        rows_of_feature = torch.split(self._rows(jagged.keys_N, kjt.values().device), kjt.length_per_key())
        lengths_FB = kjt.lengths().view(len(kjt.keys()), -1)
        return {
            feature: JaggedTensor(values=rows, lengths=lengths)
            for feature, rows, lengths in zip(kjt.keys(), rows_of_feature, lengths_FB, strict=True)
        }

    def _rows(self, keys_N: Keys, device: torch.device) -> Tensor:
        """Row of each occurrence, (N, D)."""
        if not self.learns:
            return torch.from_numpy(self.table.lookup(keys_N)).to(device)
        rows_ND: Tensor = _Rows.apply(_anchor(device), self, keys_N)  # type: ignore[no-untyped-call]
        return rows_ND


def pooled_part(table: EmbeddingTable, jagged: JaggedKeys, pooling: Sequence[Pooling]) -> PooledPart:
    """All features of a batch for one table; ``pooling`` is of each feature."""
    scale_FB = None
    if "mean" in pooling:
        # A sum takes the factor 1, and so does an empty bag.
        length_FB = np.maximum(np.diff(jagged.offsets), 1).reshape(len(pooling), -1)
        is_mean_F1 = np.array([how == "mean" for how in pooling])[:, None]
        scale_FB = np.where(is_mean_F1, np.float32(1.0) / length_FB.astype(np.float32), np.float32(1.0))
    bags = Bags(offsets=jagged.offsets, scale_B=None if scale_FB is None else scale_FB.reshape(-1))
    return PooledPart(
        table=table, dim=table.spec.dim, keys_N=jagged.keys_N, bags=bags, n_features=len(pooling)
    )


def _anchor(device: torch.device) -> Tensor:
    """Without an input that wants a gradient, autograd would never call backward."""
    return torch.empty(0, device=device, requires_grad=True)


def _pooled(parts: Sequence[PooledPart], n_examples: int) -> Tensor:
    bags_of_part = [torch.from_numpy(part.table.lookup_bags(part.keys_N, part.bags)) for part in parts]
    if [part.n_features for part in parts] == [1]:
        return bags_of_part[0]
    pooled_BW = torch.empty(n_examples, sum(part.width for part in parts))
    for view_BFD, part, bags in zip(_by_part(pooled_BW, parts), parts, bags_of_part, strict=True):
        view_BFD.copy_(bags.view(part.n_features, n_examples, -1).transpose(0, 1))
    return pooled_BW


def _by_part(whole_BW: Tensor, parts: Sequence[PooledPart]) -> list[Tensor]:
    """The columns of each part, (B, F, D)."""
    widths = [part.width for part in parts]
    columns = whole_BW.split_with_sizes(widths, dim=1) if len(parts) > 1 else [whole_BW]
    return [
        columns_BW.view(-1, part.n_features, part.dim)
        for columns_BW, part in zip(columns, parts, strict=True)
    ]


class _Pooled(torch.autograd.Function):
    """Pools bags on forward; its backward is the tables' learn."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, module: TableModule, parts: Sequence[PooledPart], n_examples: int
    ) -> Tensor:
        ctx.module, ctx.parts = module, parts
        return _pooled(parts, n_examples).to(anchor.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BW: Tensor) -> tuple[None, None, None, None]:
        parts: Sequence[PooledPart] = ctx.parts
        for grad_BFD, part in zip(_by_part(grad_BW.to("cpu", torch.float32), parts), parts, strict=True):
            grads = grad_BFD.transpose(0, 1).contiguous().view(-1, part.dim)
            ctx.module.learn(part.table, part.keys_N, part.bags, grads.numpy())
        return None, None, None, None


class _Rows(torch.autograd.Function):
    """Looks rows up on forward; its backward is the table's learn."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, module: SequenceEmbeddings, keys_N: Keys) -> Tensor:
        ctx.module, ctx.keys_N = module, keys_N
        return torch.from_numpy(module.table.lookup(keys_N)).to(anchor.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[None, None, None]:
        grads_ND = grad_ND.to("cpu", torch.float32).contiguous().numpy()
        ctx.module.learn(ctx.module.table, ctx.keys_N, None, grads_ND)
        return None, None, None
