"""The keys of a ``KeyedJaggedTensor`` as arrays: what a table can take.

Axes: N keys of a batch, F features, B examples; bags are feature-major, (F, B).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.errors import ConfigError, ShapeError
from recsys.table.table import Keys, Offsets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JaggedKeys:
    """Bags of keys by feature and example; nothing shared with the tensor they were taken from."""

    features: list[str]
    """Names, in the order of the bags; (F,)."""
    n_examples: int
    """B."""
    keys_N: Keys
    """Keys of all bags, one after another."""
    offsets: Offsets
    """Where each bag begins, and N; (F * B + 1,)."""

    @classmethod
    def of(cls, kjt: KeyedJaggedTensor) -> JaggedKeys:
        """Raises ShapeError unless keys are int64, and bags are unweighted and alike in number."""
        if kjt.weights_or_none() is not None:
            raise ShapeError("got a weighted KeyedJaggedTensor, want one without weights")
        if kjt.variable_stride_per_key():
            raise ShapeError("got features of different batch sizes, want one batch size for all")
        return cls(
            features=kjt.keys(),
            n_examples=kjt.stride(),
            keys_N=as_keys(kjt.values()).copy(),
            offsets=_offsets(kjt),
        )

    def only(self, features: Sequence[str]) -> JaggedKeys:
        """The bags of some features, in that order. Raises ConfigError for a feature that is not there."""
        if list(features) == self.features:
            return self
        missing = [feature for feature in features if feature not in self.features]
        if missing:
            raise ConfigError(f"no keys came for {missing}; they came for {self.features}")
        ends_of_bags = [self._ends(feature) for feature in features]
        if len(ends_of_bags) == 1:
            keys_N, offsets = self.keys_N[ends_of_bags[0][0] : ends_of_bags[0][-1]], ends_of_bags[0]
        else:
            keys_N = np.concatenate([self.keys_N[ends[0] : ends[-1]] for ends in ends_of_bags])
            offsets = np.zeros(len(features) * self.n_examples + 1, dtype=np.int64)
            np.cumsum(np.concatenate([np.diff(ends) for ends in ends_of_bags]), out=offsets[1:])
        return JaggedKeys(
            features=list(features),
            n_examples=self.n_examples,
            keys_N=keys_N,
            offsets=offsets - offsets[0],
        )

    def _ends(self, feature: str) -> Offsets:
        begin = self.features.index(feature) * self.n_examples
        return self.offsets[begin : begin + self.n_examples + 1]


def as_keys(values_N: Tensor) -> Keys:
    """The bits of int64 values as keys: a view where they are in memory one after another."""
    if values_N.dtype != torch.int64:
        raise ShapeError(f"keys must be an int64 tensor, got {values_N.dtype}; do not cast keys, view them")
    keys_N: Keys = values_N.detach().cpu().contiguous().numpy().view(np.uint64)
    return keys_N


def _offsets(kjt: KeyedJaggedTensor) -> Offsets:
    known = kjt.offsets_or_none()
    if known is not None:
        copied: Offsets = known.detach().cpu().numpy().astype(np.int64)
        return copied
    lengths = kjt.lengths().detach().cpu().numpy()
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
