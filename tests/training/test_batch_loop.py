"""Batch training gives the online loop's model, bit for bit, and stops where it is told."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch, plain_examples
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest
from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.reference import ReferenceTable
from streaming.deltas import DeltaPublisher
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.memory_log import Entry, MemoryLog
from training.archive import ExampleArchive, archive_to_end, read_examples
from training.batch_loop import train_on
from training.checkpoints import CheckpointConfig, Checkpoints
from training.online_loop import LoopConfig, LoopStatus, OnlineLoop
from training.sync import DeltaSync, SyncConfig

TOPIC, SCHEMA, N_FEATURES, DIM = "examples", 7, 2, 3


def new_learner() -> RankingLearner:
    slices = (
        SliceSpec(name="wide", dim=1, optimizer=Adagrad(learning_rate=0.1), initializer=Zeros()),
        SliceSpec(
            name="vector",
            dim=DIM,
            optimizer=Adagrad(learning_rate=0.1),
            initializer=Uniform(low=-0.1, high=0.1),
        ),
    )
    table = ReferenceTable(TableSpec(name="rows", slices=slices))
    tower = DeepFMConfig(n_features=N_FEATURES, vector_dim=DIM, hidden=(4,))
    return RankingLearner(table, tower, {"user": "sum", "item": "mean"})


def examples(n_rows: int, seed: int) -> ExampleBatch:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 3, (n_rows, N_FEATURES)).astype(np.uint8)
    return plain_examples(
        example_id_B=rng.integers(0, 1 << 63, n_rows).astype(np.uint64),
        user_id_B=np.zeros(n_rows, np.uint64),
        item_id_B=np.zeros(n_rows, np.uint64),
        event_time_ms_B=rng.integers(0, 300_000, n_rows),
        label_B=rng.integers(0, 2, n_rows).astype(np.float32),
        keys=RaggedKeys(rng.integers(0, 9, int(lengths.sum())).astype(np.uint64), lengths),
        schema_fingerprint=SCHEMA,
    )


class Unobserved:
    """Nobody is told."""

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        pass

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        pass


def learned_online(log: MemoryLog, learner: RankingLearner, micro_batch: int, folder: Path) -> OnlineLoop:
    source = log.source([(TOPIC, 0)])
    loop = OnlineLoop(
        LoopConfig(recipe="test", schema_fingerprint=SCHEMA, micro_batch=micro_batch),
        source,
        learner,
        DeltaSync(learner, DeltaPublisher(MemoryLog()), SyncConfig(model="test-1", incarnation=1)),
        Checkpoints(CheckpointConfig(folder=folder)),
        metrics=ProgressiveMetrics(60_000),
        observer=Unobserved(),
        clock_ms=lambda: 0,
    )
    while source.positions() != source.end_offsets():
        loop.poll_once()
    return loop


def state_of(learner: RankingLearner, metrics: ProgressiveMetrics) -> dict[str, NDArray[Any]]:
    rows = learner.table.export_rows(learner.table.keys())
    return {
        "keys": rows.keys_N,
        "weights": rows.weights_ND,
        "state": rows.state_NS,
        "last_seen": rows.last_seen_s_N,
        **learner.dense_state(),
        **metrics.state(),
    }


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any),
    st.integers(1, 8),
    st.integers(1, 30),
    st.data(),
)
def test_a_pass_over_the_archive_gives_the_online_loops_bits(
    sizes: list[int], micro_batch: int, rows_per_part: int, data: st.DataObject
) -> None:
    sent = [
        encode_examples(ExampleMessage(batch=examples(n_rows, seed), sequence=seed))
        for seed, n_rows in enumerate(sizes)
    ]
    again = data.draw(st.sets(st.sampled_from(range(len(sent)))))
    values = [value for number, value in enumerate(sent) for _ in range(1 + (number in again))]
    log = MemoryLog(Entry(TOPIC, 0, b"", value) for value in values)
    with TemporaryDirectory() as folder:
        taught_online = new_learner()
        online = learned_online(log, taught_online, micro_batch, Path(folder) / "snapshots")
        archive = ExampleArchive(Path(folder) / "archive", rows_per_part=rows_per_part)
        archive_to_end(log.source([(TOPIC, 0)]), archive)
        learner, metrics = new_learner(), ProgressiveMetrics(60_000)
        status = train_on(
            read_examples(Path(folder) / "archive"), learner, micro_batch=micro_batch, metrics=metrics
        )
    assert (status.examples, status.as_of_ms) == (online.status.examples, online.status.as_of_ms)
    assert archive.coverage.offsets == online.status.offsets
    assert archive.coverage.marks == online.status.marks
    wanted = state_of(taught_online, online.metrics)
    found = state_of(learner, metrics)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].tobytes() == array.tobytes(), name


def test_each_example_is_counted_before_it_is_learned() -> None:
    batch, metrics = examples(6, 0), ProgressiveMetrics(60_000)
    before = new_learner().predict(batch.keys)
    train_on([batch], new_learner(), micro_batch=6, metrics=metrics)
    wanted = log_loss(batch.label_B, before.astype(float))
    assert metrics.total.metrics()["log_loss"] == pytest.approx(wanted, rel=1e-5)


@given(st.integers(0, 40))
@settings(deadline=None, max_examples=15)
def test_a_limit_ends_the_pass_with_the_batch_that_reaches_it(limit: int) -> None:
    batches = [examples(10, seed) for seed in range(3)]
    wanted = next((total for total in (0, 10, 20, 30) if total >= limit), 30)
    status = train_on(batches, new_learner(), micro_batch=4, metrics=ProgressiveMetrics(60_000), limit=limit)
    assert status.examples == wanted
