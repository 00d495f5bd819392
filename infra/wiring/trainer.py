"""The online trainer's process."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from infra.observers.run_recorder import RunRecorder
from infra.observers.several import Observers
from infra.observers.training import TrainingTelemetry
from infra.recipes.recipe import Recipe
from infra.settings import Settings
from infra.snapshot_mirror import SnapshotMirror
from infra.snapshot_store import SnapshotStore, fetch_newer
from infra.telemetry import serve_metrics
from infra.wiring.kafka import kafka_config
from infra.wiring.recipes import build_registry, make_table, now_ms, snapshot_folder, snapshot_store
from recsys.errors import ConfigError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import Manifest, read_manifest
from streaming.deltas import DeltaPublisher
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, partition_count
from streaming.merged_source import MergedSource
from streaming.source import EventSource
from streaming.topics import EXAMPLES
from training.checkpoints import CheckpointConfig, Checkpoints, restore_from
from training.lag import LagConfig
from training.online_loop import LoopConfig, OnlineLoop
from training.snapshot_rhythm import SnapshotPeriods
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
    snapshots: SnapshotPeriods = field(default_factory=SnapshotPeriods)
    """How often they are taken."""
    lag: LagConfig = field(default_factory=LagConfig)
    """What happens when examples come faster than they are learned."""
    snapshot_at: int = 0
    """Also save when so many showings are learned; 0: never."""
    track: bool = False
    """Record the run in MLflow."""
    metrics_port: int = 0
    """0: none."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """An online loop and who is told about it. ``run`` in one thread; ``loop.stop`` from any."""

    loop: OnlineLoop
    telemetry: TrainingTelemetry
    mirror: SnapshotMirror | None
    recorder: RunRecorder | None

    def run(self) -> None:
        """Loop until stopped; a tracked run ends with it, as failed where the loop fails."""
        failed = True
        for worker in (self.mirror, self.recorder):
            if worker is not None:
                worker.start()
        try:
            self.loop.run()
            failed = False
        finally:
            if self.mirror is not None:
                self.mirror.close()
            self.telemetry.finish()
            if self.recorder is not None:
                self.recorder.close(failed=failed)


def build_trainer(recipe: Recipe, settings: Settings, options: TrainerOptions) -> Trainer:
    """An online loop that goes on from its newest snapshot, from ``start_from``, or from nothing."""
    kafka = kafka_config(settings)
    learner, metrics = build_learner(recipe), ProgressiveMetrics(window_ms=60_000)
    folder = snapshot_folder(recipe, settings)
    checkpoints = Checkpoints(CheckpointConfig(folder=folder, keep=options.keep))
    store = snapshot_store(recipe, settings)
    manifest = _restored(
        checkpoints, learner, metrics, store=store, folder=folder, start_from=options.start_from
    )
    sync = DeltaSync(learner, DeltaPublisher(KafkaSink(kafka)), _lineage(recipe, manifest))
    mirror = SnapshotMirror(store, folder) if store is not None else None
    source, recorder = _examples(kafka), _recorder(recipe, settings, options)
    telemetry = TrainingTelemetry(
        serve_metrics(options.metrics_port),
        learner.table,
        sync,
        KafkaSink(kafka),
        clock_ms=now_ms,
        partition_skips=lambda: source.skips if isinstance(source, MergedSource) else 0,
        mirror_failures=lambda: mirror.failures if mirror is not None else 0,
    )
    loop = OnlineLoop(
        LoopConfig(
            recipe=recipe.name,
            schema_fingerprint=recipe.schema.fingerprint,
            micro_batch=recipe.micro_batch,
            snapshots=options.snapshots,
            lag=options.lag,
            snapshot_at=options.snapshot_at,
            label_names=recipe.join.rules.label_names[: recipe.tower.n_tasks],
        ),
        source,
        learner,
        sync,
        checkpoints,
        metrics=metrics,
        observer=Observers([one for one in (telemetry, mirror, recorder) if one is not None]),
        clock_ms=now_ms,
    )
    if manifest is not None:
        loop.resume(manifest)
    return Trainer(loop, telemetry, mirror, recorder)


def _restored(
    checkpoints: Checkpoints,
    learner: RankingLearner,
    metrics: ProgressiveMetrics,
    *,
    store: SnapshotStore | None,
    folder: Path,
    start_from: Path | None,
) -> Manifest | None:
    """Load what there is to go on from; its manifest, under the highest incarnation that is known."""
    # What a store knows of was published: the next start must be new to whoever follows it.
    highest = fetch_newer(store, folder) if store is not None else 0
    manifest = checkpoints.restore(learner, metrics)
    if start_from is not None:
        if manifest is None:
            return restore_from(start_from, learner)
        _check_lineage(start_from, manifest, folder)
    if manifest is None:
        return None
    return manifest.model_copy(update={"incarnation": max(highest, manifest.incarnation)})


def _examples(kafka: KafkaConfig) -> EventSource:
    """All partitions of the example topic, in the one order that follows from its log."""
    count = partition_count(kafka, EXAMPLES)
    sources = {(EXAMPLES, n): KafkaSource(kafka, [(EXAMPLES, n)]) for n in range(count)}
    return sources[EXAMPLES, 0] if count == 1 else MergedSource(sources, clock_ms=now_ms)


def _check_lineage(start_from: Path, restored: Manifest, folder: Path) -> None:
    """A restart repeats its command line; another model in the folder means that it was not meant."""
    if start_from.exists() and read_manifest(start_from).model != restored.model:
        raise ConfigError(
            f"{folder} holds snapshots of {restored.model!r}, which is not the model of {start_from}; "
            "move that folder away, or leave out --from"
        )


def _lineage(recipe: Recipe, manifest: Manifest | None) -> SyncConfig:
    return SyncConfig(
        model=f"{recipe.name}-{uuid.uuid4().hex[:8]}" if manifest is None else manifest.model,
        incarnation=1 if manifest is None else manifest.incarnation + 1,
        codec=recipe.wire_codec,
        dense_period_ms=recipe.dense_period_ms,
    )


def _recorder(recipe: Recipe, settings: Settings, options: TrainerOptions) -> RunRecorder | None:
    """What records the run in MLflow, where that was asked for."""
    if not options.track:
        return None
    return RunRecorder(build_registry(settings).start_run(recipe.name, parameters_of(recipe)))


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
