"""Logs as events with fields, metrics for Prometheus, and who fills them in.

Every process offers its metrics over HTTP; ``process_cpu_seconds_total`` among them says what a
stage of the loop costs.
"""

from __future__ import annotations

import logging
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.parser import text_string_to_metric_families

from infra.playing import Player
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import Manifest
from serving.follower import ReplicaFollower
from serving.replica import Replica
from streaming.events import encode_dead_letter
from streaming.label_join import JoinCounters
from streaming.sink import EventSink
from streaming.source import Record
from streaming.topics import DEAD_LETTER
from training.online_loop import LoopStatus

if TYPE_CHECKING:
    from training.promotion.mlflow_registry import RunLog

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class EventFormatter(logging.Formatter):
    """``time level event key=value …`` on one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        tail = "".join(f" {name}={value!r}" for name, value in fields.items())
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower()} {record.getMessage()}{tail}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(*, verbose: bool) -> None:
    """Events to stderr; our own from INFO up when verbose, else from WARNING up."""
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(EventFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[to_stderr], force=True)
    # What fails there reaches us as an error of our own; what torch says of its tracer is no news.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("torch.fx").setLevel(logging.ERROR)
    for package in ("recsys", "streaming", "feature_store", "training", "serving", "infra"):
        logging.getLogger(package).setLevel(logging.INFO if verbose else logging.WARNING)


def serve_metrics(port: int) -> CollectorRegistry:
    """A registry behind ``http://127.0.0.1:port/metrics``; no server where the port is 0."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    if port:
        start_http_server(port, addr="127.0.0.1", registry=registry)
    return registry


def read_metrics(port: int, timeout_s: float = 1.0) -> dict[str, float]:
    """Current samples of another process by name{labels}; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout_s) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


class TrainingTelemetry:
    """Progress of the online loop. Called from the loop's thread."""

    def __init__(
        self,
        registry: CollectorRegistry,
        table_rows: Callable[[], int],
        sink: EventSink,
        run: RunLog | None,
    ) -> None:
        self._table_rows, self._sink, self._run = table_rows, sink, run
        self._latest: dict[str, float] = {}
        self._rejected = Counter("training_rejected_batches", "Batches in dead-letter", registry=registry)
        examples = Gauge("training_examples_total", "Examples learned", registry=registry)
        # Read live: a replay that must not run ahead asks for it many times a second.
        examples.set_function(lambda: self._status.examples if self._status else 0)
        self._status: LoopStatus | None = None
        self._rows = Gauge("training_table_rows", "Rows of the table", registry=registry)
        self._as_of = Gauge("training_as_of_ms", "Event time of the newest example", registry=registry)
        self._metric = Gauge("training_progressive", "Metrics so far", ["metric"], registry=registry)
        self._stage = Gauge(
            "training_stage_seconds_total", "Wall time by stage", ["stage"], registry=registry
        )

    def progressed(self, status: LoopStatus, metrics: ProgressiveMetrics) -> None:
        """Refresh every gauge."""
        self._status = status
        self._rows.set(self._table_rows())
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
        self._sink.publish(DEAD_LETTER, record.topic.encode(), letter)

    def snapshot_written(self, path: Path, manifest: Manifest) -> None:
        """Record metrics and manifest in the tracked run, where there is one."""
        if self._run is not None:
            if self._latest:
                self._run.log_metrics(self._latest, manifest.examples)
            self._run.log_snapshot(path, manifest)


def count_replay(registry: CollectorRegistry, player: Player) -> None:
    """Offer how far a player has come."""
    rows = Gauge("streaming_replay_rows_total", "Rows sent", registry=registry)
    rows.set_function(lambda: player.rows)


class JoinTelemetry:
    """Progress of a joiner."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Gauge("streaming_join_events_total", "Join outcomes", ["outcome"], registry=registry)
        self._lag = Gauge("streaming_join_lag_records", "Records behind the log's end", registry=registry)

    def progressed(self, counters: JoinCounters, lag: int) -> None:
        """Refresh every gauge."""
        for name in JoinCounters.__slots__:
            self._events.labels(name).set(getattr(counters, name))
        self._lag.set(lag)


class ServingTelemetry:
    """Answers by code and time, and how old the parameters are."""

    def __init__(
        self,
        registry: CollectorRegistry,
        replica: Replica,
        follower: ReplicaFollower,
        clock_ms: Callable[[], int],
    ) -> None:
        self._answers = Counter("serving_rank_answers", "Answers by status code", ["code"], registry=registry)
        self._seconds = Histogram(
            "serving_rank_seconds",
            "Time per request",
            buckets=(0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0),
            registry=registry,
        )
        rows = Gauge("serving_table_rows", "Rows of the replica", registry=registry)
        rows.set_function(lambda: len(replica.parameters.table) if replica.ready.is_set() else 0)
        age = Gauge(
            "serving_parameter_age_ms", "Since the newest applied delta was sealed", registry=registry
        )
        age.set_function(lambda: _age_ms(replica, clock_ms))
        sequence = Gauge("serving_table_sequence", "Newest applied delta", registry=registry)
        sequence.set_function(lambda: replica.parameters.table_sequence if replica.ready.is_set() else -1)
        applied = Gauge("serving_deltas_total", "Deltas by outcome", ["outcome"], registry=registry)
        self._applied, self._follower = applied, follower

    def answered(self, code: str, seconds: float, candidates: int) -> None:
        """Count one answer."""
        self._answers.labels(code).inc()
        self._seconds.observe(seconds)
        for outcome, count in self._follower.outcomes.items():
            self._applied.labels(outcome.value).set(count)


def _age_ms(replica: Replica, clock_ms: Callable[[], int]) -> float:
    if not replica.ready.is_set() or not replica.parameters.sealed_at_ms:
        return float("nan")
    return max(0.0, clock_ms() - replica.parameters.sealed_at_ms)
