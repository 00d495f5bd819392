"""A training step of the torch modules (forward, backward, row-wise Adagrad) beside FBGEMM and bare tables.

One thread: set OMP_NUM_THREADS=1. Axes: B batches of N ids, F features with a table each.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from document import Figure
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from recsys.table import RowWiseAdagrad
from recsys.table.bag_collection import CollectionRules, CollisionlessEmbeddingBagCollection
from recsys.table.native import NativeTable
from recsys.table.table import Bags
from table.fbgemm import LEARNING_RATE, Fbgemm
from table.ids import Draw, Ids, key_batches, universe_keys
from table.timing import Call, interleaved, rate, ratio

BAR = {16: 2.5, 64: 2.0}
"""How many times FBGEMM's rate, by dimension."""


class ModuleSteps:
    """A collection of F full tables, and the calls that are timed. One caller at a time."""

    def __init__(self, *, n_rows: int, dim: int, n_features: int) -> None:
        self._names = [f"f{i}" for i in range(n_features)]
        configs = [
            EmbeddingBagConfig(num_embeddings=n_rows, embedding_dim=dim, name=name, feature_names=[name])
            for name in self._names
        ]
        rules = CollectionRules(optimizer=RowWiseAdagrad(learning_rate=LEARNING_RATE))
        self._module = CollisionlessEmbeddingBagCollection(
            configs, rules, make_table=partial(NativeTable, threads=1)
        )
        self._module.event_time_s = 1
        self._dim = dim
        for table in self._module.tables.values():
            table.admit(universe_keys(n_rows), event_time_s=1)

    def steps(self, ids_BN: Ids) -> list[Call]:
        """Forward and backward of each batch, against a gradient made beforehand."""
        gradient = torch.randn(
            ids_BN.shape[1] // len(self._names),
            len(self._names) * self._dim,
            generator=torch.Generator().manual_seed(0),
        )
        lengths = torch.ones(ids_BN.shape[1], dtype=torch.int64)
        return [
            partial(self._step, torch.from_numpy(ids_N.view(np.int64)), lengths, gradient) for ids_N in ids_BN
        ]

    def bare_steps(self, ids_BN: Ids) -> list[Call]:
        """The same, as calls of the tables with arrays made beforehand."""
        n = ids_BN.shape[1] // len(self._names)
        grads = np.random.default_rng(0).normal(size=(n, self._dim)).astype(np.float32)
        bags = Bags(offsets=np.arange(n + 1, dtype=np.int64))
        return [partial(self._bare_step, ids_N.reshape(-1, n), bags, grads) for ids_N in ids_BN]

    def _step(self, ids: torch.Tensor, lengths: torch.Tensor, gradient: torch.Tensor) -> None:
        kjt = KeyedJaggedTensor(keys=self._names, values=ids, lengths=lengths)
        self._module(kjt).values().backward(gradient)

    def _bare_step(self, ids_FN: Ids, bags: Bags, grads: np.ndarray) -> None:
        for ids_N, table in zip(ids_FN, self._module.tables.values(), strict=True):
            table.lookup_bags(ids_N, bags)
        for ids_N, table in zip(ids_FN, self._module.tables.values(), strict=True):
            table.learn_bags(ids_N, bags, grads, event_time_s=1)


def module_figures(
    *, n_rows: int, dim: int, n_features: int, n_ids: int, draw: Draw, n_batches: int, repeats: int
) -> list[Figure]:
    """Rate of a step over ``n_ids`` ids of each feature, one id a bag, against FBGEMM and the bare table."""
    module = ModuleSteps(n_rows=n_rows, dim=dim, n_features=n_features)
    peer = Fbgemm(n_rows=n_rows, dim=dim, n_tables=n_features)
    ids_BN = key_batches(draw, (n_batches, n_features * n_ids), n_rows, seed=0)
    took = interleaved(
        {"module": module.steps(ids_BN), "bare": module.bare_steps(ids_BN), "fbgemm": peer.steps(ids_BN)},
        repeats,
    )
    name = f"module_step_{n_features}x{n_ids}_dim{dim}_{draw}"
    return [
        rate(name, ids_BN.size, took["module"]),
        ratio(f"{name}_vs_fbgemm", took["module"], took["fbgemm"], bar=BAR.get(dim)),
        ratio(f"{name}_vs_bare_table", took["module"], took["bare"]),
    ]
