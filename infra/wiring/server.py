"""The server's process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infra.features import DatasetFeatures
from infra.model_sources import AliasSource, FolderSource, UrlSource
from infra.observers.serving import ServingTelemetry
from infra.recipes.recipe import Recipe
from infra.settings import Settings
from infra.telemetry import serve_metrics
from infra.wiring.kafka import kafka_config
from infra.wiring.recipes import (
    build_registry,
    load_dataset,
    make_scorer,
    now_ms,
    snapshot_folder,
    snapshot_store,
)
from serving.follower import ReplicaFollower
from serving.impressions import ImpressionLog
from serving.pipeline import RankLimits
from serving.replica import Replica
from serving.service import RecommenderService, ServiceConfig
from streaming.deltas import DeltaSubscriber
from streaming.kafka import KafkaSink, KafkaSource
from streaming.late_source import LateSource
from streaming.topics import DELTAS


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What a command line says about a server."""

    model: str | None = None
    """Registry alias to follow, as NAME@ALIAS; None: the newest snapshot."""
    data_dir: Path | None = None
    """Folder that holds the data set; None: where the recipe finds it."""
    metrics_port: int = 0
    """0: none."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server's parts; the caller starts and stops them."""

    service: RecommenderService
    replica: Replica
    follower: ReplicaFollower
    impressions: ImpressionLog
    sink: KafkaSink
    deltas: LateSource

    def close(self) -> None:
        """Stop following, and send the impressions that still wait, if that can be done in time."""
        self.follower.stop()
        self.deltas.close()
        self.impressions.close()
        self.sink.close()


def build_server(recipe: Recipe, settings: Settings, options: ServerOptions) -> Server:
    """A server whose replica follows the trainer's log, or a registry alias and that model's log.

    The broker may be away: it serves from a snapshot, and goes on trying to reach the log.
    """
    kafka = kafka_config(settings)
    dataset = load_dataset(recipe, settings, options.data_dir)
    replica = Replica(lambda: make_scorer(recipe), recipe.schema.fingerprint, codec=recipe.wire_codec)
    folder, store = snapshot_folder(recipe, settings), snapshot_store(recipe, settings)
    # A server on another host sees the trainer's snapshots only through the store.
    newest = (
        FolderSource(folder)
        if store is None
        else UrlSource(store, settings.cache_dir / "snapshots" / recipe.name)
    )
    source: FolderSource | UrlSource | AliasSource = newest
    if options.model is not None:
        source = AliasSource(build_registry(settings), options.model, newest)
    deltas = LateSource(lambda: KafkaSource(kafka, [(DELTAS, 0)]))
    follower = ReplicaFollower(replica, DeltaSubscriber(deltas), source)
    sink = KafkaSink(kafka, opens_late=True)
    impressions = ImpressionLog(sink, recipe.schema.fingerprint)
    telemetry = ServingTelemetry(
        serve_metrics(options.metrics_port),
        replica,
        follower,
        now_ms,
        impressions_lost=lambda: impressions.lost,
    )
    service = RecommenderService(
        ServiceConfig(
            limits=RankLimits(domains=recipe.domains, is_open=recipe.has_open_domains, context=recipe.context)
        ),
        replica,
        DatasetFeatures(recipe.schema, dataset),
        impressions,
        observer=telemetry,
        clock_ms=now_ms,
    )
    return Server(service, replica, follower, impressions, sink, deltas)
