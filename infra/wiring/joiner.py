"""The joiner's process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from infra.observers.joining import JoinTelemetry
from infra.recipes.recipe import Recipe
from infra.settings import Settings
from infra.telemetry import serve_metrics
from infra.wiring.kafka import kafka_config
from infra.wiring.recipes import now_ms
from recsys.errors import RecsysError
from streaming.inputs import Assignment, FixedInputs, InputSource
from streaming.joiner import JoinerConfig, JoinWorker
from streaming.kafka import GroupSource, KafkaConfig, KafkaSink, KafkaSource, partition_count
from streaming.label_join import LabelJoin
from streaming.source import EventSource, Partition
from streaming.spill import RocksStore
from streaming.topics import FEEDBACK, IMPRESSIONS


class KafkaConnections:
    """A joiner's connections to one cluster: all input partitions, or those that a group gives it."""

    def __init__(
        self, kafka: KafkaConfig, assignment: Assignment, group: str | None, instance_id: str | None
    ) -> None:
        """Raises SourceUnavailable or SinkUnavailable; nothing stays open then."""
        self._kafka = kafka
        self.sink = KafkaSink(kafka)
        self._consumer: KafkaSource | GroupSource
        try:
            if group is None:
                numbers = range(partition_count(kafka, IMPRESSIONS))
                inputs = [(topic, number) for number in numbers for topic in (IMPRESSIONS, FEEDBACK)]
                self._consumer = KafkaSource(kafka, inputs)
                self.source: InputSource = FixedInputs(self._consumer, assignment)
            else:
                topics = [IMPRESSIONS, FEEDBACK]
                shared = GroupSource(kafka, group, topics, assignment, instance_id=instance_id)
                self._consumer = self.source = shared
        except RecsysError:
            self.sink.close()
            raise

    @contextmanager
    def open_output(self, at: Partition) -> Iterator[EventSource]:
        """As OpenOutput says."""
        with closing(KafkaSource(self._kafka, [at])) as source:
            yield source

    def close(self) -> None:
        """As Connections says."""
        for client in (self._consumer, self.sink):
            # What was not committed is read and stated again.
            with suppress(RecsysError):
                client.close()


def build_joiner(
    recipe: Recipe,
    settings: Settings,
    *,
    group: str | None = None,
    instance_id: str | None = None,
    metrics_port: int = 0,
) -> JoinWorker:
    """A joiner between the topics of one cluster; with a ``group`` it shares the partitions with others."""
    kafka = kafka_config(settings)
    telemetry = JoinTelemetry(serve_metrics(metrics_port), now_ms)

    def make_join(number: int) -> LabelJoin:
        folder = joiner_folder(recipe, settings) / f"partition-{number:04d}"
        inputs = [(IMPRESSIONS, number), (FEEDBACK, number)]
        return LabelJoin(recipe.join, inputs, RocksStore(folder))

    return JoinWorker(
        lambda assignment: KafkaConnections(kafka, assignment, group, instance_id),
        make_join,
        JoinerConfig(),
        clock_ms=now_ms,
        on_progress=telemetry.progressed,
    )


def joiner_folder(recipe: Recipe, settings: Settings) -> Path:
    """Where the joiners of a recipe keep their state; all joiners of a group must reach it."""
    return settings.state_dir / recipe.name / "joiner"
