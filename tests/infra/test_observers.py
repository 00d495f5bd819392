"""Learning does not end because somebody who is told about it is out of reach."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from infra.observers.training import TrainingTelemetry
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.table import SGD, Occurrence, SliceSpec, TableSpec, Zeros
from recsys.table.reference import ReferenceTable
from streaming.deltas import DeltaPublisher
from streaming.errors import SinkUnavailable
from streaming.memory_log import MemoryLog
from streaming.source import Record
from streaming.topics import EXAMPLES
from training.loop_status import LoopStatus
from training.sync import DeltaSync, SyncConfig

NOW_MS = 1_700_000_000_000


class BrokenSink:
    """An EventSink whose log is away."""

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        raise SinkUnavailable("told to fail")

    def flush(self) -> None:
        raise SinkUnavailable("told to fail")

    def position(self, topic: str, partition: int) -> int:
        return 0


def table() -> ReferenceTable:
    weight = SliceSpec(name="weight", dim=1, optimizer=SGD(learning_rate=0.1), initializer=Zeros())
    return ReferenceTable(TableSpec(name="observed", slices=(weight,), admission=Occurrence(threshold=2)))


def sync_of(small: Any) -> DeltaSync:
    return DeltaSync(small.learner(), DeltaPublisher(MemoryLog()), SyncConfig(model="m", incarnation=1))


def test_how_old_everything_is_is_shown(small: Any) -> None:
    registry = CollectorRegistry()
    telemetry = TrainingTelemetry(registry, table(), sync_of(small), BrokenSink(), clock_ms=lambda: NOW_MS)
    status = LoopStatus(as_of_ms=NOW_MS - 4_000, watermark_ms=NOW_MS - 3_000, lag_records=7)
    telemetry.progressed(status, ProgressiveMetrics(60_000))
    assert registry.get_sample_value("training_sample_age_seconds") == 4.0
    assert registry.get_sample_value("training_watermark_age_seconds") == 3.0
    assert math.isnan(registry.get_sample_value("training_snapshot_age_seconds") or 0.0)
    assert registry.get_sample_value("training_lag_records") == 7.0


def test_what_became_of_keys_is_shown(small: Any) -> None:
    registry, observed = CollectorRegistry(), table()
    telemetry = TrainingTelemetry(registry, observed, sync_of(small), BrokenSink(), clock_ms=lambda: NOW_MS)
    for keys in ([1, 2], [1]):
        n = len(keys)
        observed.learn(np.array(keys, np.uint64), np.ones((n, 1), np.float32), event_time_s=1)
    telemetry.progressed(LoopStatus(), ProgressiveMetrics(60_000))
    fates = {
        fate: registry.get_sample_value("training_table_keys", {"fate": fate})
        for fate in ("admitted", "filtered", "expired", "evicted")
    }
    assert fates == {"admitted": 1.0, "filtered": 2.0, "expired": 0.0, "evicted": 0.0}
    assert registry.get_sample_value("training_table_bytes", {"kind": "live"}) == observed.memory().bytes_live


def test_a_dead_letter_that_cannot_be_sent_is_counted_and_passed_over(small: Any) -> None:
    registry = CollectorRegistry()
    telemetry = TrainingTelemetry(registry, table(), sync_of(small), BrokenSink(), clock_ms=lambda: NOW_MS)
    telemetry.rejected(Record(EXAMPLES, 0, 7, b"", b"no examples"), "told to")
    telemetry.finish()
    assert registry.get_sample_value("training_rejected_batches_total") == 1.0


def test_metrics_can_be_asked_for_before_the_first_seal(small: Any) -> None:
    registry = CollectorRegistry()
    TrainingTelemetry(registry, table(), sync_of(small), BrokenSink(), clock_ms=lambda: NOW_MS)
    assert registry.get_sample_value("training_examples_total") == 0.0


def test_what_a_source_skipped_and_a_mirror_missed_is_read_when_somebody_asks(small: Any) -> None:
    registry, counts = CollectorRegistry(), {"skips": 0, "failures": 0}
    TrainingTelemetry(
        registry,
        table(),
        sync_of(small),
        BrokenSink(),
        clock_ms=lambda: NOW_MS,
        partition_skips=lambda: counts["skips"],
        mirror_failures=lambda: counts["failures"],
    )
    counts.update(skips=3, failures=2)
    assert registry.get_sample_value("training_partition_skips_total") == 3.0
    assert registry.get_sample_value("training_mirror_failures_total") == 2.0
