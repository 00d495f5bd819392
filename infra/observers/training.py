"""Progress of the online loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import Manifest
from recsys.table.table import EmbeddingTable
from streaming.errors import SinkUnavailable
from streaming.events import encode_dead_letter
from streaming.sink import EventSink
from streaming.source import Record
from streaming.topics import DEAD_LETTER
from training.loop_status import LoopStatus
from training.sync import DeltaSync

log = logging.getLogger(__name__)


class TrainingTelemetry:
    """Progress of the online loop. Called from the loop's thread."""

    def __init__(
        self,
        registry: CollectorRegistry,
        table: EmbeddingTable,
        sync: DeltaSync,
        sink: EventSink,
        *,
        clock_ms: Callable[[], int],
        partition_skips: Callable[[], int] = lambda: 0,
        mirror_failures: Callable[[], int] = lambda: 0,
    ) -> None:
        """The two counts are those of a MergedSource and of a SnapshotMirror, where there is one."""
        self._table, self._sync, self._sink = table, sync, sink
        self._clock_ms = clock_ms
        self._status: LoopStatus | None = None
        self._rejected = Counter("training_rejected_batches", "Batches in dead-letter", registry=registry)
        examples = Gauge("training_examples_total", "Examples learned", registry=registry)
        # Read live: a replay that must not run ahead asks for it many times a second.
        examples.set_function(lambda: self._status.examples if self._status else 0)
        showings = Gauge("training_showings_total", "Showings that they stand for", registry=registry)
        showings.set_function(lambda: self._status.showings if self._status else 0)
        self._rows = Gauge("training_table_rows", "Rows of the table", registry=registry)
        self._keys = Gauge("training_table_keys", "What became of keys", ["fate"], registry=registry)
        self._bytes = Gauge("training_table_bytes", "Bytes of the table", ["kind"], registry=registry)
        self._as_of = Gauge("training_as_of_ms", "Event time of the newest example", registry=registry)
        self._lag = Gauge("training_lag_records", "Messages behind the log's end", registry=registry)
        self._share = Gauge("training_negative_share", "Share of negatives learned", registry=registry)
        self._void = Gauge("training_void_messages_total", "Sent twice, or behind a fence", registry=registry)
        self._failed = Gauge("training_snapshot_failures_total", "Snapshots not written", registry=registry)
        skips = Gauge("training_partition_skips_total", "Silent partitions not waited for", registry=registry)
        skips.set_function(partition_skips)
        copies = Gauge(
            "training_mirror_failures_total", "Snapshots not copied to the store", registry=registry
        )
        copies.set_function(mirror_failures)
        self._sync_rows = Gauge("training_sync_rows_total", "Rows published", registry=registry)
        self._sync_bytes = Gauge("training_sync_bytes_total", "Bytes of deltas published", registry=registry)
        self._sync_period = Gauge("training_sync_period_ms", "From seal to seal", registry=registry)
        self._sync_pending = Gauge("training_sync_pending_rows", "Rows of failed seals", registry=registry)
        # Ages grow while nothing happens, so they are read when somebody asks.
        for name, meaning, since in (
            ("training_sample_age_seconds", "Since the newest example was shown", "as_of_ms"),
            ("training_watermark_age_seconds", "Event time behind the clock", "watermark_ms"),
            ("training_snapshot_age_seconds", "Since the newest snapshot", "saved_ms"),
        ):
            Gauge(name, meaning, registry=registry).set_function(partial(self._age_s, since))
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
        self._lag.set(status.lag_records)
        self._share.set(status.share)
        self._void.set(status.void_messages)
        self._failed.set(status.snapshot_failures)
        self._sync_rows.set(self._sync.rows_sent)
        self._sync_bytes.set(self._sync.bytes_sent)
        self._sync_period.set(self._sync.period_ms)
        self._sync_pending.set(self._sync.pending_rows)
        for name, value in metrics.total.metrics().items():
            self._metric.labels(name).set(value)
        for stage, seconds in status.stage_s.items():
            self._stage.labels(stage).set(seconds)

    def _age_s(self, since: str) -> float:
        since_ms = getattr(self._status, since) if self._status else 0
        return (self._clock_ms() - since_ms) / 1000 if since_ms else float("nan")

    def rejected(self, record: Record, reason: str) -> None:
        """Count it and keep its bytes for somebody to look at."""
        self._rejected.inc()
        letter = encode_dead_letter(record, reason, rejected_at_ms=self._clock_ms())
        try:
            self._sink.publish(DEAD_LETTER, record.topic.encode(), letter)
        except SinkUnavailable as error:
            log.warning("dead_letter_lost", extra={"offset": record.offset, "reason": str(error)})

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        """Its time is in the status."""

    def finish(self) -> None:
        """Send what is left of the dead letters."""
        try:
            self._sink.flush()
        except SinkUnavailable as error:
            log.warning("dead_letters_lost", extra={"reason": str(error)})
