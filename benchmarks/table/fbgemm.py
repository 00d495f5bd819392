"""FBGEMM's table-batched embedding on the CPU, as a user without a collisionless table would run it.

Axes: B batches of N ids, T tables, D columns. Ids find their rows by modulo, inside the timed call.
"""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from table.ids import Ids
from table.timing import Call

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

LEARNING_RATE = 0.05
EPSILON = 1e-8


class Fbgemm:
    """T tables of the same shape, learnt by row-wise Adagrad with exact sums. One caller at a time.

    Threads are torch's: torch.set_num_threads.

    A batch holds the ids of table 0, then of table 1, and so on, as many for each, in bags of ``bag`` ids.
    """

    def __init__(
        self, *, n_rows: int, dim: int, n_tables: int = 1, bag: int = 1, pooled: bool = True
    ) -> None:
        self._n_rows, self._dim, self._n_tables, self._bag = n_rows, dim, n_tables, bag
        spec = (n_rows, dim, EmbeddingLocation.HOST, ComputeDevice.CPU)
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            embedding_specs=[spec] * n_tables,
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            pooling_mode=PoolingMode.SUM if pooled else PoolingMode.NONE,
            learning_rate=LEARNING_RATE,
            eps=EPSILON,
            stochastic_rounding=False,
        )
        self.tables.init_embedding_weights_uniform(-0.05, 0.05)

    def lookups(self, places_BN: NDArray[np.int64]) -> list[Call]:
        """One forward pass for each batch, by plain index: no modulo and no gradient."""
        offsets = self._offsets(places_BN.shape[1])
        return [partial(self._look_up, torch.from_numpy(places_N), offsets) for places_N in places_BN]

    def steps(self, ids_BN: Ids) -> list[Call]:
        """Modulo, pooled forward, backward and update for each batch, against a gradient made beforehand."""
        n = ids_BN.shape[1]
        gradient = torch.randn(
            n // (self._n_tables * self._bag),
            self._n_tables * self._dim,
            generator=torch.Generator().manual_seed(0),
        )
        offsets = self._offsets(n)
        return [partial(self._step, torch.from_numpy(i.view(np.int64)), offsets, gradient) for i in ids_BN]

    def _offsets(self, n: int) -> torch.Tensor:
        return torch.arange(0, n + 1, self._bag, dtype=torch.int64)

    def _look_up(self, places: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.tables(places, offsets)

    def _step(self, ids: torch.Tensor, offsets: torch.Tensor, gradient: torch.Tensor) -> None:
        self.tables(torch.remainder(ids, self._n_rows), offsets).backward(gradient)
