"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.features import Feature, FeatureSchema, RaggedKeys
from recsys.interactions import ExampleBatch, plain_examples
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer
from recsys.snapshots import Manifest
from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.modules import Pooling
from recsys.table.native import NativeTable

# Two cores are shared with brokers and servers under test; torch's own threads would fight them.
torch.set_num_threads(1)

# A deadline is a wall clock: on two shared cores it fails tests that are right.
settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")


@pytest.fixture(scope="session")
def recsys_data() -> Path:
    """Folder of the real data sets; a test that needs it is skipped, with the reason, where it is absent."""
    folder = os.environ.get("RECSYS_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set RECSYS_DATA to the folder that holds the parquet files")
    return Path(folder)


class SmallModel:
    """A ranker of two features over a dozen keys each, and what tests build around it. Holds no state."""

    n_ids, dim = 12, 4
    pooling: Mapping[str, Pooling] = MappingProxyType({"user": "sum", "item": "mean"})
    tower = DeepFMConfig(n_features=2, vector_dim=3, hidden=(4,), seed=3)
    schema = FeatureSchema(
        (
            Feature(name="user", number=0, columns=("user.id",), bits=(20,)),
            Feature(name="item", number=1, columns=("item.id",), bits=(20,)),
        )
    )

    def table(self, name: str = "rows") -> NativeTable:
        rule = Adagrad(learning_rate=0.1)
        wide = SliceSpec(name="wide", dim=1, optimizer=rule, initializer=Zeros())
        vector = SliceSpec(name="vector", dim=3, optimizer=rule, initializer=Uniform(low=-0.5, high=0.5))
        return NativeTable(TableSpec(name=name, slices=(wide, vector)), threads=1)

    def learner(self) -> RankingLearner:
        return self.learner_over(self.table())

    def learner_over(self, table: NativeTable) -> RankingLearner:
        return RankingLearner(table, self.tower, self.pooling)

    def scorer(self) -> tuple[NativeTable, RankingScorer]:
        table = self.table()
        return table, RankingScorer(table, self.tower, self.pooling)

    def keys(self, *ids: int) -> NDArray[np.uint64]:
        """Keys of the first feature and then of the second one."""
        return np.array([(i // self.n_ids) << 52 | i % self.n_ids for i in ids], np.uint64)

    def examples(self, seed: int, n_rows: int = 5) -> ExampleBatch:
        """Random examples; a bag holds up to two keys, and event time rises with the seed."""
        rng = np.random.default_rng(seed)
        lengths_NF = rng.integers(0, 3, (n_rows, 2)).astype(np.uint8)
        feature_T = np.repeat(np.tile(np.arange(2), n_rows), lengths_NF.ravel())
        keys_T = self.keys(*(feature_T * self.n_ids + rng.integers(0, self.n_ids, lengths_NF.sum())).tolist())
        return plain_examples(
            example_id_B=rng.integers(0, 1 << 62, n_rows).astype(np.uint64),
            user_id_B=np.zeros(n_rows, np.uint64),
            item_id_B=np.zeros(n_rows, np.uint64),
            event_time_ms_B=1_700_000_000_000 + 30_000 * seed + rng.integers(0, 20_000, n_rows),
            label_B=rng.integers(0, 2, n_rows).astype(np.float32),
            keys=RaggedKeys(keys_T, lengths_NF),
            schema_fingerprint=self.schema.fingerprint,
        )

    def learn(self, learner: RankingLearner, seed: int, n_rows: int = 5) -> None:
        batch = self.examples(seed, n_rows)
        learner.step(batch.keys, batch.label_B, event_time_s=int(batch.event_time_ms_B.max()) // 1000)

    def manifest(self, **changes: Any) -> Manifest:
        plain: dict[str, Any] = {
            "model": "small-1",
            "incarnation": 1,
            "table_sequence": 0,
            "dense_sequence": 0,
            "delta_position": 0,
            "as_of_ms": 0,
            "examples": 0,
            "source_offsets": {},
            "marks": {},
            "recipe": "small",
            "schema_fingerprint": self.schema.fingerprint,
        }
        return Manifest(**(plain | changes))

    def rows_of(self, table: NativeTable) -> dict[int, bytes]:
        """The bits of each row's weights."""
        keys = table.keys()
        return dict(zip(keys.tolist(), map(np.ndarray.tobytes, table.lookup(keys)), strict=True))

    def bits_of(self, learner: RankingLearner, metrics: ProgressiveMetrics) -> dict[str, bytes]:
        """The bits of all that is learned: rows, optimizer state, dense state, metrics."""
        rows = learner.table.export_rows(learner.table.keys())
        arrays: dict[str, NDArray[Any]] = {
            "keys": rows.keys_N,
            "weights": rows.weights_ND,
            "state": rows.state_NS,
            "last_seen": rows.last_seen_s_N,
            **learner.dense_state(),
            **metrics.state(),
        }
        return {name: array.tobytes() for name, array in arrays.items()}


@pytest.fixture(scope="session")
def small() -> SmallModel:
    """A model small enough to be built, trained, saved and served many times in one test."""
    return SmallModel()
