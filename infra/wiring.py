"""The composition root: real objects out of a recipe, settings and options."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_store.datasets.log import Dataset
from infra.features import DatasetFeatures
from infra.model_sources import AliasSource, FolderSource
from infra.recipes.kuairand import kuairand
from infra.recipes.movielens import movielens
from infra.recipes.recipe import Recipe
from infra.settings import Settings, settings_from
from infra.telemetry import JoinTelemetry, ServingTelemetry, TrainingTelemetry, serve_metrics
from recsys.errors import ConfigError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer
from recsys.snapshots import Manifest
from recsys.table.native import NativeTable
from serving.follower import ReplicaFollower
from serving.impressions import ImpressionLog
from serving.pipeline import RankLimits
from serving.replica import Replica
from serving.service import RecommenderService, ServiceConfig
from streaming.deltas import DeltaPublisher, DeltaSubscriber
from streaming.joiner import JoinerConfig, JoinWorker
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource
from streaming.topics import DELTAS, EXAMPLES, FEEDBACK, IMPRESSIONS
from training.checkpoints import CheckpointConfig, Checkpoints, restore_from
from training.online_loop import LoopConfig, OnlineLoop
from training.sync import DeltaSync, SyncConfig

if TYPE_CHECKING:
    from training.promotion.mlflow_registry import ModelRegistry

RECIPES = {"movielens": movielens, "kuairand": kuairand}


def now_ms() -> int:
    """The wall clock, Unix milliseconds."""
    return time.time_ns() // 1_000_000


def load_recipe(name: str) -> Recipe:
    """A recipe by name. Raises ConfigError for one that does not exist."""
    if name not in RECIPES:
        raise ConfigError(f"recipe {name!r} does not exist; use one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]()


def current_settings(**overrides: str | Path | None) -> Settings:
    """Settings of this process's environment, with what the command line said on top."""
    said = {name: value for name, value in overrides.items() if value is not None}
    return settings_from(os.environ).model_copy(update=said)


def load_dataset(recipe: Recipe, settings: Settings, data_dir: Path | None = None) -> Dataset:
    """The recipe's data: from ``data_dir`` in its owners' layout, else from where the recipe finds it."""
    return recipe.load(data_dir, settings)


def make_table(recipe: Recipe) -> NativeTable:
    """An empty table of the recipe's layout."""
    return NativeTable(recipe.table, threads=2)


def build_learner(recipe: Recipe) -> RankingLearner:
    """A learner that knows nothing yet."""
    return RankingLearner(make_table(recipe), recipe.tower, recipe.pooling, recipe.adam)


def make_scorer(recipe: Recipe) -> tuple[NativeTable, RankingScorer]:
    """An empty read-only table and a scorer over it."""
    table = make_table(recipe)
    return table, RankingScorer(table, recipe.tower, recipe.pooling)


def build_registry(settings: Settings) -> ModelRegistry:
    """The MLflow registry that the settings name; imported late because it takes seconds."""
    from training.promotion.mlflow_registry import ModelRegistry  # noqa: PLC0415

    return ModelRegistry(settings.registry_uri, settings.state_dir / "registry")


def snapshot_folder(recipe: Recipe, settings: Settings) -> Path:
    """Where a recipe's online trainer keeps its snapshots."""
    return settings.state_dir / recipe.name / "snapshots"


def build_joiner(recipe: Recipe, settings: Settings, *, metrics_port: int = 0) -> JoinWorker:
    """A joiner between the topics of one broker."""
    kafka = KafkaConfig(bootstrap=settings.kafka_bootstrap)
    telemetry = JoinTelemetry(serve_metrics(metrics_port))
    return JoinWorker(
        KafkaSource(kafka, [(IMPRESSIONS, 0), (FEEDBACK, 0)]),
        KafkaSink(kafka),
        KafkaSource(kafka, [(EXAMPLES, 0)]),
        JoinerConfig(join=recipe.join, progress_path=settings.state_dir / recipe.name / "joiner.json"),
        clock_ms=now_ms,
        on_progress=telemetry.progressed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerOptions:
    """What a command line says about a trainer."""

    start_from: Path | None = None
    keep: int = 3
    snapshot_at: int = 0
    track: bool = False
    metrics_port: int = 0


def build_trainer(recipe: Recipe, settings: Settings, options: TrainerOptions) -> OnlineLoop:
    """An online loop that goes on from its newest snapshot, from ``start_from``, or from nothing."""
    kafka = KafkaConfig(bootstrap=settings.kafka_bootstrap)
    learner, metrics = build_learner(recipe), ProgressiveMetrics(window_ms=60_000)
    checkpoints = Checkpoints(CheckpointConfig(folder=snapshot_folder(recipe, settings), keep=options.keep))
    manifest = checkpoints.restore(learner, metrics)
    if manifest is None and options.start_from is not None:
        manifest = restore_from(options.start_from, learner)
    sync = DeltaSync(learner, DeltaPublisher(KafkaSink(kafka)), _lineage(recipe, manifest))
    # What is restored was sealed before, or is in the first snapshot of this start.
    learner.table.drain_touched()
    loop = OnlineLoop(
        LoopConfig(
            recipe=recipe.name,
            schema_fingerprint=recipe.schema.fingerprint,
            micro_batch=recipe.micro_batch,
            snapshot_at_examples=options.snapshot_at,
        ),
        KafkaSource(kafka, [(EXAMPLES, 0)]),
        learner,
        sync,
        checkpoints,
        metrics=metrics,
        observer=_observer(recipe, settings, options, learner),
        clock_ms=now_ms,
    )
    if manifest is not None:
        loop.resume(manifest)
    return loop


def _lineage(recipe: Recipe, manifest: Manifest | None) -> SyncConfig:
    if manifest is None:
        return SyncConfig(model=f"{recipe.name}-{uuid.uuid4().hex[:8]}", incarnation=1)
    return SyncConfig(model=manifest.model, incarnation=manifest.incarnation + 1)


def _observer(
    recipe: Recipe, settings: Settings, options: TrainerOptions, learner: RankingLearner
) -> TrainingTelemetry:
    run = None
    if options.track:
        run = build_registry(settings).start_run(recipe.name, parameters_of(recipe))
    sink = KafkaSink(KafkaConfig(bootstrap=settings.kafka_bootstrap))
    return TrainingTelemetry(serve_metrics(options.metrics_port), lambda: len(learner.table), sink, run)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a command line says about a server."""

    model: str | None = None
    data_dir: Path | None = None
    metrics_port: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """A server's parts; the caller starts and stops them."""

    service: RecommenderService
    replica: Replica
    follower: ReplicaFollower


def build_server(recipe: Recipe, settings: Settings, options: ServerOptions) -> Server:
    """A server whose replica follows the trainer's log, or a registry alias and that model's log."""
    kafka = KafkaConfig(bootstrap=settings.kafka_bootstrap)
    dataset = load_dataset(recipe, settings, options.data_dir)
    replica = Replica(lambda: make_scorer(recipe), recipe.schema.fingerprint)
    folder = FolderSource(snapshot_folder(recipe, settings))
    source: FolderSource | AliasSource = folder
    if options.model is not None:
        source = AliasSource(build_registry(settings), options.model, folder)
    follower = ReplicaFollower(replica, DeltaSubscriber(KafkaSource(kafka, [(DELTAS, 0)])), source)
    telemetry = ServingTelemetry(serve_metrics(options.metrics_port), replica, follower, now_ms)
    service = RecommenderService(
        ServiceConfig(limits=RankLimits(domains=recipe.domains, context=recipe.context)),
        replica,
        DatasetFeatures(recipe.schema, dataset),
        ImpressionLog(KafkaSink(kafka), recipe.schema.fingerprint),
        observer=telemetry,
        clock_ms=now_ms,
    )
    return Server(service, replica, follower)
