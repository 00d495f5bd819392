"""A growing set of keys, as arrays."""

from __future__ import annotations

import numpy as np

from recsys.table.table import Keys

_FEW = 4096


class NotedKeys:
    """Keys noted one array at a time and taken all at once. One thread only.

    Arrays are merged when as many keys were added as there were distinct ones: O(log n) work per key
    noted, and less than three times the memory of the distinct keys.
    """

    def __init__(self) -> None:
        self._pieces: list[Keys] = []
        self._n_keys = self._n_merged = 0

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return 8 * self._n_keys

    def add(self, keys_N: Keys) -> None:
        """Note keys, whether or not they are noted already."""
        if not len(keys_N):
            return
        self._pieces.append(keys_N)
        self._n_keys += len(keys_N)
        if self._n_keys > 2 * self._n_merged + _FEW:
            self._pieces = [self._distinct()]
            self._n_keys = self._n_merged = len(self._pieces[0])

    def take(self) -> Keys:
        """The distinct keys, ascending; none is noted afterwards."""
        keys_N = self._distinct()
        self._pieces, self._n_keys, self._n_merged = [], 0, 0
        return keys_N

    def _distinct(self) -> Keys:
        return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *self._pieces]))
