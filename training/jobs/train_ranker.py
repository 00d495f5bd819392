"""Train a ranker in batch from archived examples: Ray started in-process, one Ray Train worker.

Data and result pass as paths. The worker builds its learner from the recipe's name, learns the archive
in one pass and writes a snapshot that says how much of the topic it has learned: the online loop can
start from it and reads on from there.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from recsys.errors import ConfigError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.interactions import ExampleBatch, begins_with_labels
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest, write_snapshot
from training.archive import coverage_of, read_examples
from training.batch_loop import train_on
from training.errors import LayoutMismatch, TrainingError

OBJECT_STORE_BYTES = 128 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """What is trained, from what, and where it goes."""

    recipe: str
    """Name from which the worker builds its learner; written into the snapshot."""
    model: str
    """Lineage of the new model: never used before."""
    examples: Path
    """Folder that ExampleArchive wrote."""
    out: Path
    """Folder for the snapshot."""
    schema_fingerprint: int
    """Of the features that the recipe learns from; other examples are refused."""
    label_names: tuple[str, ...] = ()
    """What the recipe learns, in its order: examples must begin with them. Empty: any."""
    micro_batch: int = 64
    """Examples per learning step; > 0. As in the online loop, another value gives another model."""
    window_ms: int = 60_000
    """Event time of one window of the metrics; > 0."""
    report_every: int = 100
    """Messages between two reports to Ray Train; > 0."""
    workers: int = 1
    """Ray Train workers. Only 1: the rows of one table live in one process."""

    def __post_init__(self) -> None:
        for name in ("micro_batch", "window_ms", "report_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.workers != 1:
            raise ConfigError(f"workers must be 1, got {self.workers}: a table cannot be split over workers")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a finished job leaves."""

    snapshot: Path
    """The finished snapshot."""
    metrics: dict[str, float]
    """Progressive metrics over the whole pass."""
    history: list[dict[str, float]]
    """The same as they stood at each report, oldest first."""


def train_ranker(job: TrainJob, build_learner: Callable[[str], RankingLearner]) -> TrainResult:
    """Run the job and wait for it; no process of Ray's outlives the call.

    ``build_learner`` makes an untrained learner of a recipe's name. It runs in the worker, so it must be
    importable there. Raises TrainingError with the worker's own reason.
    """
    job = _checked(job)
    # Sockets live below this folder and the length of their paths is limited.
    scratch = tempfile.mkdtemp(prefix="hr-")
    # Ray would report its use to its makers, and look at its workers every two seconds only.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    try:
        ray.init(
            address="local",
            num_cpus=job.workers,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=scratch,
        )
        trainer = TorchTrainer(
            _train,
            train_loop_config={"job": job, "build_learner": build_learner},
            scaling_config=ScalingConfig(num_workers=job.workers, use_gpu=False),
            run_config=RunConfig(name="train", storage_path=f"{scratch}/runs"),
        )
        return TrainResult(**trainer.fit().return_value)
    except TrainingFailedError as error:
        raise TrainingError(f"training {job.recipe!r} on {job.examples}: {_reason(error)}") from error
    finally:
        ray.shutdown()
        shutil.rmtree(scratch, ignore_errors=True)


def _checked(job: TrainJob) -> TrainJob:
    """The job with absolute paths, since a worker has another folder of its own."""
    covered = coverage_of(job.examples)
    if covered.rows and covered.schema_fingerprint != job.schema_fingerprint:
        raise LayoutMismatch(
            f"examples in {job.examples} have feature schema {covered.schema_fingerprint:016x}, recipe "
            f"{job.recipe!r} wants {job.schema_fingerprint:016x}; archive what was joined with this recipe"
        )
    wanted, names = job.label_names, tuple(covered.label_names)
    if names and not begins_with_labels(names, wanted):
        raise LayoutMismatch(
            f"examples in {job.examples} have labels {', '.join(names)}, recipe {job.recipe!r} wants "
            f"{', '.join(wanted)}; archive what was joined with this recipe"
        )
    return replace(job, examples=job.examples.absolute(), out=job.out.absolute())


def _train(config: dict[str, Any]) -> dict[str, Any]:
    """What the worker runs; its return value makes the TrainResult."""
    job: TrainJob = config["job"]
    learner: RankingLearner = config["build_learner"](job.recipe)
    metrics, covered = ProgressiveMetrics(job.window_ms), coverage_of(job.examples)
    history: list[dict[str, float]] = []

    def report() -> None:
        history.append(metrics.total.metrics())
        ray.train.report(history[-1])

    batches = _reported(read_examples(job.examples), report, job.report_every)
    status = train_on(batches, learner, micro_batch=job.micro_batch, metrics=metrics)
    report()
    manifest = Manifest(
        model=job.model,
        incarnation=1,
        table_sequence=0,
        dense_sequence=0,
        delta_position=0,
        as_of_ms=status.as_of_ms,
        examples=status.examples,
        source_offsets=covered.offsets,
        marks=covered.marks,
        recipe=job.recipe,
        schema_fingerprint=job.schema_fingerprint,
    )
    path = write_snapshot(job.out, manifest, learner.table, learner.dense_state(), metrics.state())
    return {"snapshot": path, "metrics": history[-1], "history": history}


def _reported(
    batches: Iterator[ExampleBatch], report: Callable[[], None], every: int
) -> Iterator[ExampleBatch]:
    """The same batches; ``report`` is called when so many more of them have been learned."""
    for number, batch in enumerate(batches):
        if number and number % every == 0:
            report()
        yield batch


def _reason(error: TrainingFailedError) -> str:
    """The first worker's own words, where a worker failed; else Ray's."""
    cause: BaseException = error
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        cause = next(iter(error.worker_failures.values()))
    return f"{type(cause).__name__}: {cause}"
