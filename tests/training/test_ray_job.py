"""The Ray job end to end: archived examples in, a snapshot that a learner loads out, nothing left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.features import RaggedKeys
from recsys.interactions import plain_examples
from recsys.ranking.deepfm import DeepFMConfig
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest, read_manifest
from recsys.table import Adagrad, SliceSpec, TableSpec, Uniform, Zeros
from recsys.table.reference import ReferenceTable
from streaming.deltas import DeltaPublisher
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.memory_log import Entry, MemoryLog
from streaming.source import Record
from training.archive import ExampleArchive, read_examples
from training.batch_loop import train_on
from training.checkpoints import CheckpointConfig, Checkpoints, restore_from
from training.errors import LayoutMismatch, TrainingError
from training.jobs.train_ranker import TrainJob, TrainResult, train_ranker
from training.online_loop import LoopConfig, LoopStatus, OnlineLoop
from training.sync import DeltaSync, SyncConfig

# Ray 2.60 reads its own deprecated settings when a trainer is made.
pytestmark = pytest.mark.filterwarnings("ignore:`use_[a-z0-9_]+` is deprecated:DeprecationWarning")

SCHEMA, N_FEATURES, N_MESSAGES, N_ROWS = 7, 2, 5, 40


def learner_builder() -> Callable[[str], RankingLearner]:
    """A builder that travels whole: the worker cannot import this file."""

    def build(recipe: str) -> RankingLearner:
        if recipe != "small":
            raise ConfigError(f"recipe {recipe!r} does not exist")
        fast = Adagrad(learning_rate=0.1)
        slices = (
            SliceSpec(name="wide", dim=1, optimizer=fast, initializer=Zeros()),
            SliceSpec(name="vector", dim=3, optimizer=fast, initializer=Uniform(low=-0.1, high=0.1)),
        )
        tower = DeepFMConfig(n_features=N_FEATURES, vector_dim=3, hidden=(4,))
        table = ReferenceTable(TableSpec(name=recipe, slices=slices))
        return RankingLearner(table, tower, {"user": "sum", "item": "sum"})

    return build


def message(number: int) -> bytes:
    rng = np.random.default_rng(number)
    keys = rng.integers(0, 20, N_ROWS * N_FEATURES).astype(np.uint64)
    batch = plain_examples(
        example_id_B=np.arange(N_ROWS, dtype=np.uint64),
        user_id_B=np.zeros(N_ROWS, np.uint64),
        item_id_B=np.zeros(N_ROWS, np.uint64),
        event_time_ms_B=np.arange(N_ROWS) * 1000 + number * 60_000,
        label_B=rng.integers(0, 2, N_ROWS).astype(np.float32),
        keys=RaggedKeys(keys, np.ones((N_ROWS, N_FEATURES), np.uint8)),
        schema_fingerprint=SCHEMA,
    )
    return encode_examples(ExampleMessage(batch=batch, sequence=number))


def job_in(folder: Path, recipe: str = "small") -> TrainJob:
    archive = ExampleArchive(folder / "examples")
    for number in range(N_MESSAGES):
        archive.add(Record("examples", 0, number, b"", message(number)))
    archive.flush()
    return TrainJob(
        recipe=recipe,
        model=f"{recipe}-1",
        examples=folder / "examples",
        out=folder / "out",
        schema_fingerprint=SCHEMA,
        micro_batch=16,
        report_every=2,
    )


class Unobserved:
    """Nobody is told."""

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        pass

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        pass


def learn_online(log: MemoryLog, learner: RankingLearner, start: Manifest | None, folder: Path) -> None:
    source = log.source([("examples", 0)])
    loop = OnlineLoop(
        LoopConfig(recipe="small", schema_fingerprint=SCHEMA, micro_batch=16),
        source,
        learner,
        DeltaSync(learner, DeltaPublisher(MemoryLog()), SyncConfig(model="small-1", incarnation=2)),
        Checkpoints(CheckpointConfig(folder=folder)),
        metrics=ProgressiveMetrics(60_000),
        observer=Unobserved(),
        clock_ms=lambda: 0,
    )
    if start is not None:
        loop.resume(start)
    while source.positions() != source.end_offsets():
        loop.poll_once()


def own_processes() -> list[str]:
    """Command lines of the processes that this one started and that are still there."""
    listed = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True, check=False
    )
    return [line for line in listed.stdout.splitlines() if "ray" in line]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return job_in(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def result(job: TrainJob) -> TrainResult:
    """One run for all that is asked of it: starting Ray takes many seconds."""
    return train_ranker(job, learner_builder())


def test_the_snapshot_holds_what_the_same_pass_learns_without_ray(job: TrainJob, result: TrainResult) -> None:
    here, there = learner_builder()("small"), learner_builder()("small")
    metrics = ProgressiveMetrics(job.window_ms)
    train_on(read_examples(job.examples), here, micro_batch=job.micro_batch, metrics=metrics)
    restore_from(result.snapshot, there)
    keys = here.table.keys()
    np.testing.assert_array_equal(there.table.keys(), keys)
    np.testing.assert_array_equal(there.table.lookup(keys), here.table.lookup(keys))
    for name, array in here.dense_state().items():
        np.testing.assert_array_equal(there.dense_state()[name], array, err_msg=name)
    assert result.metrics == metrics.total.metrics()
    assert [then["examples"] for then in result.history] == [80, 160, 200]


def test_the_snapshot_says_where_the_online_loop_reads_on(job: TrainJob, result: TrainResult) -> None:
    manifest = read_manifest(result.snapshot)
    assert result.snapshot.parent == job.out
    assert (manifest.model, manifest.incarnation, manifest.recipe) == ("small-1", 1, "small")
    assert manifest.source_offsets == {"examples/0": N_MESSAGES}
    assert manifest.marks == {"examples/0": (0, N_MESSAGES - 1)}
    assert (manifest.table_sequence, manifest.dense_sequence) == (0, 0)
    assert manifest.examples == N_MESSAGES * N_ROWS


def test_the_online_loop_goes_on_from_it_as_if_it_had_learned_all(
    result: TrainResult, tmp_path: Path
) -> None:
    values = [message(number) for number in range(N_MESSAGES + 2)]
    log = MemoryLog(Entry("examples", 0, b"", value) for value in values)
    alone, handed_over = learner_builder()("small"), learner_builder()("small")
    learn_online(log, alone, None, tmp_path)
    learn_online(log, handed_over, restore_from(result.snapshot, handed_over), tmp_path)
    keys = alone.table.keys()
    np.testing.assert_array_equal(handed_over.table.lookup(keys), alone.table.lookup(keys))
    for name, array in alone.dense_state().items():
        np.testing.assert_array_equal(handed_over.dense_state()[name], array, err_msg=name)


def test_a_finished_job_leaves_no_process_behind(result: TrainResult) -> None:
    assert result.snapshot.is_dir()
    assert own_processes() == []


def test_a_worker_that_fails_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"ConfigError: recipe 'absent' does not exist"):
        train_ranker(job_in(tmp_path, "absent"), learner_builder())
    assert own_processes() == []
    assert not (tmp_path / "out").exists()


def test_examples_of_other_features_are_refused_before_ray_starts(job: TrainJob) -> None:
    other = TrainJob(
        recipe="small", model="small-2", examples=job.examples, out=job.out, schema_fingerprint=SCHEMA + 1
    )
    with pytest.raises(LayoutMismatch, match="joined with this recipe"):
        train_ranker(other, learner_builder())


def test_examples_of_other_labels_are_refused_before_ray_starts(job: TrainJob) -> None:
    with pytest.raises(LayoutMismatch, match="recipe 'small' wants click, long_view"):
        train_ranker(replace(job, label_names=("click", "long_view")), learner_builder())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 2}, "workers must be 1, got 2"),
        ({"micro_batch": 0}, "micro_batch must be > 0, got 0"),
    ],
)
def test_a_job_that_cannot_be_is_refused_when_built(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainJob(
            recipe="small", model="m", examples=Path("a"), out=Path("b"), schema_fingerprint=1, **settings
        )
