"""Which domain a row belongs to, told from its keys.

The domain is a feature of the schema, so every row carries it already, from the request to the
example: no other channel is needed, and an index cannot disagree with the feature.

Axes: B rows, N domains.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.features import RaggedKeys
from recsys.hashing import mix64_each
from recsys.keys import VALUE_BITS, Ids

_VALUE = np.uint64((1 << VALUE_BITS) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDomains:
    """Domains by the value of one single-valued feature. Immutable: any number of readers."""

    feature: int
    """Its place in the schema."""
    values: tuple[int, ...]
    """The column's value of each domain that has an index of its own; all others share the last one."""
    _sorted: NDArray[np.uint64] = field(init=False, repr=False, compare=False)
    _index_of_sorted: Ids = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values) or min(self.values) < 0:
            raise ConfigError(f"domains: want at least one value, each once and >= 0; got {self.values}")
        if self.feature < 0:
            raise ConfigError(f"domains: want the place of a feature, >= 0; got {self.feature}")
        order = np.argsort(self.values)
        object.__setattr__(self, "_sorted", np.array(self.values, np.uint64)[order])
        object.__setattr__(self, "_index_of_sorted", order.astype(np.int64))

    @property
    def n_domains(self) -> int:
        """N, the known ones and one more for the rest."""
        return len(self.values) + 1

    def of(self, batch: RaggedKeys) -> Ids:
        """Domain of each row, (B,); N - 1 where its value is not known or it has none or several."""
        lengths_BF = batch.lengths_NF.astype(np.int64)
        before_B = batch.offsets[:-1] + lengths_BF[:, : self.feature].sum(axis=1)
        has_one_B = lengths_BF[:, self.feature] == 1
        value_B = batch.keys_T[np.where(has_one_B, before_B, 0)] & _VALUE
        place_B = np.minimum(np.searchsorted(self._sorted, value_B), len(self.values) - 1)
        is_known_B = has_one_B & (self._sorted[place_B] == value_B)
        return np.where(is_known_B, self._index_of_sorted[place_B], len(self.values))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomDomains:
    """A control: domains that tell nothing, drawn by a hash of the row's keys. The same row, the same one."""

    n_domains: int
    """N; >= 1."""
    seed: int = 0
    """Of the hash."""

    def __post_init__(self) -> None:
        if self.n_domains < 1:
            raise ConfigError(f"n_domains must be >= 1, got {self.n_domains}")

    def of(self, batch: RaggedKeys) -> Ids:
        """Domain of each row, (B,)."""
        mixed_T = mix64_each(batch.keys_T + np.uint64(self.seed))
        ends_B = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed_T, dtype=np.uint64)])
        sum_B = np.diff(ends_B[batch.offsets])
        return (mix64_each(sum_B) % np.uint64(self.n_domains)).astype(np.int64)
