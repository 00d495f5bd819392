"""A stream of shown items with labels, and keys that a ranker can learn from.

Axes: N rows in time order, M of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.features import RaggedKeys

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Keys = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Who was shown what, oldest first, and what they did. Immutable: any number of readers."""

    keys: RaggedKeys
    """Of each row, by the schema of the model that learns it."""
    label_N: Floats
    """0 or 1."""
    time_s_N: Ids
    """When it was shown; never falls."""
    user_N: Ids
    """Of each row; only equality counts."""
    item_N: Ids
    """Of each row; only equality counts."""
    probability_N: Doubles | None = None
    """True probability of the label, where it is known."""

    def __len__(self) -> int:
        return len(self.label_N)

    @cached_property
    def _starts_N(self) -> Ids:
        """Where each row's keys start, and the end, (N + 1,): summing them anew for each piece takes longer
        than learning the piece."""
        return self.keys.offsets

    @property
    def user_key_N(self) -> Keys:
        """The first key of each row, (N,): in every stream here it is its user's."""
        keys_N: Keys = self.keys.keys_T[self._starts_N[:-1]]
        return keys_N

    def keys_between(self, start: int, stop: int) -> RaggedKeys:
        """The keys of consecutive rows, as views."""
        first, last = self._starts_N[start], self._starts_N[stop]
        return RaggedKeys(self.keys.keys_T[first:last], self.keys.lengths_NF[start:stop])

    def keys_at(self, rows_M: Ids) -> RaggedKeys:
        """The keys of these rows, in the order asked for."""
        starts_M = self._starts_N[rows_M]
        lengths_M = self._starts_N[rows_M + 1] - starts_M
        skipped_M = np.cumsum(lengths_M) - lengths_M
        places_T = np.repeat(starts_M - skipped_M, lengths_M) + np.arange(lengths_M.sum())
        return RaggedKeys(self.keys.keys_T[places_T], self.keys.lengths_NF[rows_M])
