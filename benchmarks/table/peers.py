"""Other maps from id to row, behind one verb: ``calls`` prepares each batch, and what it returns is timed.

Each map holds K keys, the i-th of which has some row of its own; ``rows`` answers for one batch, so that a
test can check that a peer really finds its keys. What a peer needs as input (tensors, jagged tensors) is made
before timing. Threads are torch's: torch.set_num_threads. Axes: B batches of N ids.
"""

from __future__ import annotations

import logging
import warnings
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from table.ids import Ids
from table.timing import Call

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchrec.modules.hash_mc_modules import HashZchManagedCollisionModule
    from torchrec.modules.mc_modules import (
        LFU_EvictionPolicy,
        LRU_EvictionPolicy,
        MCHManagedCollisionModule,
    )
    from torchrec.sparse.jagged_tensor import JaggedTensor

logging.getLogger("torchrec").setLevel(logging.ERROR)

Rows = NDArray[np.int64]
CPU = torch.device("cpu")
EMPTY = -1


class IdMap(Protocol):
    """A map of a fixed set of keys. One caller at a time."""

    def calls(self, ids_BN: Ids) -> list[Call]:
        """One call for each batch."""

    def rows(self, ids_N: Ids) -> Rows:
        """The row of each id, (N,)."""


def jagged(ids_N: Ids) -> dict[str, JaggedTensor]:
    """One feature with one id an example."""
    values = torch.from_numpy(ids_N.view(np.int64).copy())
    return {"id": JaggedTensor(values=values, lengths=torch.ones(len(ids_N), dtype=torch.int64))}


class TorchrecSorted:
    """torchrec's MCHManagedCollisionModule in evaluation: a binary search over sorted ids."""

    def __init__(self, keys_K: Ids) -> None:
        self._module = full_mch(keys_K, "lfu", every=1).eval()

    def calls(self, ids_BN: Ids) -> list[Call]:
        return [partial(self._module, jagged(ids_N)) for ids_N in ids_BN]

    def rows(self, ids_N: Ids) -> Rows:
        return self._module(jagged(ids_N))["id"].values().numpy()


class TorchrecSortedTraining:
    """The same module in training: records ids, and every so many batches inserts, evicts and sorts.

    Starts full. Timed calls must be a whole multiple of ``every``, of batches of one size: the module sizes
    its history by the first one.
    """

    def __init__(self, keys_K: Ids, policy: Literal["lfu", "lru"], *, every: int) -> None:
        self._module = full_mch(keys_K, policy, every=every).train()

    def calls(self, ids_BN: Ids) -> list[Call]:
        return [partial(self._step, jagged(ids_N)) for ids_N in ids_BN]

    def rows(self, ids_N: Ids) -> Rows:
        return self._module.remap(jagged(ids_N))["id"].values().numpy()

    def _step(self, feature: dict[str, JaggedTensor]) -> None:
        self._module(feature)
        self._module.evict()


def full_mch(keys_K: Ids, policy: Literal["lfu", "lru"], *, every: int) -> MCHManagedCollisionModule:
    """The module as it is after it has seen each key once; its last slot stands for all unknown ids."""
    module = MCHManagedCollisionModule(
        zch_size=len(keys_K) + 1,
        device=CPU,
        eviction_policy=LFU_EvictionPolicy() if policy == "lfu" else LRU_EvictionPolicy(),
        eviction_interval=every,
    )
    module._mch_sorted_raw_ids[:-1] = torch.from_numpy(np.sort(keys_K.view(np.int64)))
    if policy == "lfu":
        module._mch_counts[:-1] = 1
    return module


class TorchrecHashed:
    """torchrec's HashZchManagedCollisionModule, read-only, which is all that its CPU kernel can do.

    ``load`` is how full its table is. Keys without a slot within its 128 probes are in ``n_lost``.
    """

    PROBES = 128

    def __init__(self, keys_K: Ids, *, load: float) -> None:
        with warnings.catch_warnings():  # its constructor copies a tensor in a way that torch warns of
            warnings.simplefilter("ignore")
            self._module = HashZchManagedCollisionModule(
                zch_size=int(len(keys_K) / load), device=CPU, total_num_buckets=1, max_probe=self.PROBES
            ).eval()
        self.n_lost = self._fill(keys_K.view(np.int64))

    def calls(self, ids_BN: Ids) -> list[Call]:
        return [partial(self._module, jagged(ids_N)) for ids_N in ids_BN]

    def rows(self, ids_N: Ids) -> Rows:
        return self._module(jagged(ids_N))["id"].values().numpy()

    def _fill(self, keys_K: NDArray[np.int64]) -> int:
        """Place each key in the first free slot at or after its own; return how many found none.

        The module names a key's own slot itself: while it is empty, it answers so for every id. All keys
        take their p-th probe before any takes its next, which leaves the mean probe length of linear probing.
        """
        home_K = self.rows(keys_K.view(np.uint64))
        slots_S = np.full(self._module.output_size(), EMPTY, dtype=np.int64)
        waiting = np.arange(len(keys_K))
        for probe in range(self.PROBES):
            slot_W = (home_K[waiting] + probe) % len(slots_S)
            free_W = slots_S[slot_W] == EMPTY
            slots_S[slot_W[free_W]] = keys_K[waiting[free_W]]
            waiting = waiting[slots_S[slot_W] != keys_K[waiting]]
        self._module._hash_zch_identities.data.copy_(torch.from_numpy(slots_S[:, None]))
        return len(waiting)


class PythonDict:
    """A dict of Python integers, read through C-level loops only."""

    def __init__(self, keys_K: Ids) -> None:
        self._row_of = dict(zip(keys_K.tolist(), range(len(keys_K)), strict=True))

    def calls(self, ids_BN: Ids) -> list[Call]:
        return [partial(self.rows, ids_N) for ids_N in ids_BN]

    def rows(self, ids_N: Ids) -> Rows:
        found = map(self._row_of.get, ids_N.tolist(), [EMPTY] * len(ids_N))
        return np.fromiter(found, dtype=np.int64, count=len(ids_N))


class NumpySorted:
    """numpy.searchsorted over sorted keys, and one comparison."""

    def __init__(self, keys_K: Ids) -> None:
        self._rows_K = np.argsort(keys_K)
        self._sorted_K = keys_K[self._rows_K]

    def calls(self, ids_BN: Ids) -> list[Call]:
        return [partial(self.rows, ids_N) for ids_N in ids_BN]

    def rows(self, ids_N: Ids) -> Rows:
        at_N = np.minimum(np.searchsorted(self._sorted_K, ids_N), len(self._sorted_K) - 1)
        return np.where(self._sorted_K[at_N] == ids_N, self._rows_K[at_N], EMPTY)
