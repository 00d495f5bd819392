"""The joiner's process."""

from __future__ import annotations

from infra.observers.joining import JoinTelemetry
from infra.recipes.recipe import Recipe
from infra.settings import Settings
from infra.telemetry import serve_metrics
from infra.wiring.recipes import now_ms
from streaming.joiner import JoinerConfig, JoinWorker
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource
from streaming.topics import EXAMPLES, FEEDBACK, IMPRESSIONS


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
