"""A small ranking problem: three features, the middle one multi-valued, over twelve keys each."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.features import RaggedKeys
from recsys.ranking.dcn import DCNv2Config
from recsys.ranking.deepfm import DeepFMConfig
from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.native import NativeTable

N_IDS, DIM = 12, 4
POOLING = {"user": "sum", "tags": "mean", "recent": "sum"}


class Problem:
    """What the ranking tests share. Holds no state."""

    n_ids, dim, pooling = N_IDS, DIM, POOLING
    wide_rate, vector_rate, accumulator = 0.05, 0.02, 0.1
    towers = (
        DeepFMConfig(n_features=3, vector_dim=DIM, hidden=(6, 5), seed=3),
        DCNv2Config(n_features=3, vector_dim=DIM, n_cross=2, hidden=(6,), seed=3),
    )

    def empty_table(self):
        wide = SliceSpec(
            name="wide",
            dim=1,
            optimizer=Adagrad(learning_rate=self.wide_rate, initial_accumulator=self.accumulator),
            initializer=Zeros(),
        )
        vector = SliceSpec(
            name="vector",
            dim=DIM,
            optimizer=Adagrad(learning_rate=self.vector_rate, initial_accumulator=self.accumulator),
            initializer=Uniform(low=-0.5, high=0.5),
        )
        return NativeTable(TableSpec(name="ranking", slices=(wide, vector), seed=1))

    def all_keys(self):
        return np.array([feature << 52 | i for feature in range(3) for i in range(N_IDS)], np.uint64)

    def filled_table(self):
        """Every key has a row, so that a twin can start from the same weights."""
        table = self.empty_table()
        weights = np.random.default_rng(5).normal(scale=0.5, size=(3 * N_IDS, 1 + DIM))
        table.assign(self.all_keys(), weights.astype(np.float32))
        return table

    def batch(self, seed, n_rows=7):
        """Rows of one user, up to three tags and up to four recent items; bags may be empty."""
        rng = np.random.default_rng(seed)
        lengths_NF = np.stack(
            [np.ones(n_rows, int), rng.integers(0, 4, n_rows), rng.integers(0, 5, n_rows)], axis=1
        )
        feature_T = np.repeat(np.tile(np.arange(3), n_rows), lengths_NF.ravel()).astype(np.uint64)
        keys_T = feature_T << np.uint64(52) | rng.integers(0, N_IDS, lengths_NF.sum()).astype(np.uint64)
        return RaggedKeys(keys_T, lengths_NF.astype(np.uint8))

    def labels(self, seed, n_rows=7):
        return np.random.default_rng(seed).integers(0, 2, n_rows).astype(np.float32)


@pytest.fixture(scope="session")
def problem():
    return Problem()
