"""Learning does not end because somebody who is told about it is out of reach."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from infra.observers.training import TrainingTelemetry
from streaming.errors import SinkUnavailable
from streaming.source import Record
from streaming.topics import EXAMPLES


class BrokenSink:
    """An EventSink whose log is away."""

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        raise SinkUnavailable("told to fail")

    def flush(self) -> None:
        raise SinkUnavailable("told to fail")

    def position(self, topic: str, partition: int) -> int:
        return 0


def test_a_dead_letter_that_cannot_be_sent_is_counted_and_passed_over() -> None:
    registry = CollectorRegistry()
    telemetry = TrainingTelemetry(registry, lambda: 0, BrokenSink(), None)
    telemetry.rejected(Record(EXAMPLES, 0, 7, b"", b"no examples"), "told to")
    telemetry.finish(failed=False)
    assert registry.get_sample_value("training_rejected_batches_total") == 1.0


def test_metrics_can_be_asked_for_before_the_first_seal() -> None:
    registry = CollectorRegistry()
    TrainingTelemetry(registry, lambda: 0, BrokenSink(), None)
    assert registry.get_sample_value("training_examples_total") == 0.0
