"""The online trainer's process."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from infra.observers.training import TrainingTelemetry
from infra.recipes.recipe import Recipe
from infra.settings import Settings
from infra.telemetry import serve_metrics
from infra.wiring.recipes import build_registry, make_table, now_ms, snapshot_folder
from recsys.errors import ConfigError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest, read_manifest
from streaming.deltas import DeltaPublisher
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource
from streaming.topics import EXAMPLES
from training.checkpoints import CheckpointConfig, Checkpoints, restore_from
from training.online_loop import LoopConfig, OnlineLoop
from training.sync import DeltaSync, SyncConfig


def build_learner(recipe: Recipe) -> RankingLearner:
    """A learner that knows nothing yet."""
    return RankingLearner(make_table(recipe), recipe.tower, recipe.pooling, recipe.adam)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerOptions:
    """What a command line says about a trainer."""

    start_from: Path | None = None
    """Snapshot of a model to go on from, where the state folder has none yet."""
    keep: int = 3
    """Snapshots that stay."""
    snapshot_period_ms: int = 30_000
    snapshot_at: int = 0
    """Also save when so many examples are learned; 0: never."""
    track: bool = False
    """Record the run in MLflow."""
    metrics_port: int = 0
    """0: none."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """An online loop and who is told about it. ``run`` in one thread; ``loop.stop`` from any."""

    loop: OnlineLoop
    telemetry: TrainingTelemetry

    def run(self) -> None:
        """Loop until stopped; a tracked run ends with it, as failed where the loop fails."""
        failed = True
        try:
            self.loop.run()
            failed = False
        finally:
            self.telemetry.finish(failed=failed)


def build_trainer(recipe: Recipe, settings: Settings, options: TrainerOptions) -> Trainer:
    """An online loop that goes on from its newest snapshot, from ``start_from``, or from nothing."""
    kafka = KafkaConfig(bootstrap=settings.kafka_bootstrap)
    learner, metrics = build_learner(recipe), ProgressiveMetrics(window_ms=60_000)
    checkpoints = Checkpoints(CheckpointConfig(folder=snapshot_folder(recipe, settings), keep=options.keep))
    manifest = checkpoints.restore(learner, metrics)
    if options.start_from is not None:
        if manifest is None:
            manifest = restore_from(options.start_from, learner)
        else:
            _check_lineage(options.start_from, manifest, snapshot_folder(recipe, settings))
    sync = DeltaSync(learner, DeltaPublisher(KafkaSink(kafka)), _lineage(recipe, manifest))
    telemetry = _telemetry(recipe, settings, options, learner)
    loop = OnlineLoop(
        LoopConfig(
            recipe=recipe.name,
            schema_fingerprint=recipe.schema.fingerprint,
            micro_batch=recipe.micro_batch,
            snapshot_period_ms=options.snapshot_period_ms,
            snapshot_at_examples=options.snapshot_at,
        ),
        KafkaSource(kafka, [(EXAMPLES, 0)]),
        learner,
        sync,
        checkpoints,
        metrics=metrics,
        observer=telemetry,
        clock_ms=now_ms,
    )
    if manifest is not None:
        loop.resume(manifest)
    return Trainer(loop, telemetry)


def _check_lineage(start_from: Path, restored: Manifest, folder: Path) -> None:
    """A restart repeats its command line; another model in the folder means that it was not meant."""
    if start_from.exists() and read_manifest(start_from).model != restored.model:
        raise ConfigError(
            f"{folder} holds snapshots of {restored.model!r}, which is not the model of {start_from}; "
            "move that folder away, or leave out --from"
        )


def _lineage(recipe: Recipe, manifest: Manifest | None) -> SyncConfig:
    if manifest is None:
        return SyncConfig(model=f"{recipe.name}-{uuid.uuid4().hex[:8]}", incarnation=1)
    return SyncConfig(model=manifest.model, incarnation=manifest.incarnation + 1)


def _telemetry(
    recipe: Recipe, settings: Settings, options: TrainerOptions, learner: RankingLearner
) -> TrainingTelemetry:
    run = None
    if options.track:
        run = build_registry(settings).start_run(recipe.name, parameters_of(recipe))
    sink = KafkaSink(KafkaConfig(bootstrap=settings.kafka_bootstrap))
    return TrainingTelemetry(serve_metrics(options.metrics_port), learner.table, sink, run)


def parameters_of(recipe: Recipe) -> dict[str, object]:
    """What a tracked run records of a recipe."""
    return {
        "recipe": recipe.name,
        "micro_batch": recipe.micro_batch,
        "table": recipe.table.to_json(),
        "tower": recipe.tower,
        "adam": recipe.adam,
        "join": recipe.join,
        "features": ",".join(recipe.schema.names),
    }
