"""Progress of the online loop."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import Manifest
from recsys.table.table import EmbeddingTable
from streaming.errors import SinkUnavailable
from streaming.events import encode_dead_letter
from streaming.sink import EventSink
from streaming.source import Record
from streaming.topics import DEAD_LETTER
from training.errors import TrainingError
from training.online_loop import LoopStatus

if TYPE_CHECKING:
    from training.promotion.mlflow_registry import RunLog

log = logging.getLogger(__name__)


class TrainingTelemetry:
    """Progress of the online loop. Called from the loop's thread."""

    def __init__(
        self,
        registry: CollectorRegistry,
        table: EmbeddingTable,
        sink: EventSink,
        run: RunLog | None,
    ) -> None:
        self._table, self._sink, self._run = table, sink, run
        self._latest: dict[str, float] = {}
        self._status: LoopStatus | None = None
        self._rejected = Counter("training_rejected_batches", "Batches in dead-letter", registry=registry)
        examples = Gauge("training_examples_total", "Examples learned", registry=registry)
        # Read live: a replay that must not run ahead asks for it many times a second.
        examples.set_function(lambda: self._status.examples if self._status else 0)
        self._rows = Gauge("training_table_rows", "Rows of the table", registry=registry)
        self._keys = Gauge("training_table_keys", "What became of keys", ["fate"], registry=registry)
        self._bytes = Gauge("training_table_bytes", "Bytes of the table", ["kind"], registry=registry)
        self._as_of = Gauge("training_as_of_ms", "Event time of the newest example", registry=registry)
        self._metric = Gauge("training_progressive", "Metrics so far", ["metric"], registry=registry)
        self._stage = Gauge(
            "training_stage_seconds_total", "Wall time by stage", ["stage"], registry=registry
        )

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        """Refresh every gauge."""
        self._status = status
        self._rows.set(len(self._table))
        for fate, count in asdict(self._table.counters()).items():
            self._keys.labels(fate).set(count)
        for kind, size in asdict(self._table.memory()).items():
            self._bytes.labels(kind.removeprefix("bytes_")).set(size)
        self._as_of.set(status.as_of_ms)
        self._latest = metrics.total.metrics()
        for name, value in self._latest.items():
            self._metric.labels(name).set(value)
        for stage, seconds in status.stage_s.items():
            self._stage.labels(stage).set(seconds)

    def rejected(self, record: Record, reason: str) -> None:
        """Count it and keep its bytes for somebody to look at."""
        self._rejected.inc()
        letter = encode_dead_letter(record, reason, rejected_at_ms=time.time_ns() // 1_000_000)
        try:
            self._sink.publish(DEAD_LETTER, record.topic.encode(), letter)
        except SinkUnavailable as error:
            log.warning("dead_letter_lost", extra={"offset": record.offset, "reason": str(error)})

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        """Record metrics and manifest in the tracked run, where there is one; learning goes on without it."""
        if self._run is None:
            return
        try:
            if self._latest:
                self._run.log_metrics(self._latest, manifest.examples)
            self._run.log_snapshot(path, manifest)
        except TrainingError as error:
            log.warning("run_not_recorded", extra={"path": str(path), "reason": str(error)})

    def finish(self, *, failed: bool) -> None:
        """Send what is left of the dead letters, and end the tracked run, where there is one."""
        try:
            self._sink.flush()
            if self._run is not None:
                self._run.finish(failed=failed)
        except (SinkUnavailable, TrainingError) as error:
            log.warning("run_not_ended", extra={"reason": str(error)})
