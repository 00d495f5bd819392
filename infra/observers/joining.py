"""Progress of a joiner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge

from streaming.joiner import JoinProgress, JoinStatus
from streaming.label_join import JoinCounters


class JoinTelemetry:
    """Gauges of a joiner. Called from its thread; read from any."""

    def __init__(self, registry: CollectorRegistry, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._watermark_ms: int | None = None
        self._events = Gauge("streaming_join_events_total", "Join outcomes", ["outcome"], registry=registry)
        self._lag = Gauge("streaming_join_lag_records", "Records behind the log's end", registry=registry)
        self._status = Gauge("streaming_join_status", "1 for what it is doing", ["status"], registry=registry)
        self._partitions = Gauge("streaming_join_partitions", "Partitions joined here", registry=registry)
        self._windows = Gauge("streaming_join_windows", "Requests kept", ["place"], registry=registry)
        watermark = Gauge(
            "streaming_join_watermark_ms", "Event time up to which all has arrived", registry=registry
        )
        watermark.set_function(lambda: float("nan") if self._watermark_ms is None else self._watermark_ms)
        delay = Gauge("streaming_join_delay_seconds", "The watermark behind the clock", registry=registry)
        delay.set_function(self._delay_s)

    def progressed(self, progress: JoinProgress) -> None:
        """Refresh every gauge."""
        for one in fields(JoinCounters):
            self._events.labels(one.name).set(getattr(progress.counters, one.name))
        for status in get_args(JoinStatus):
            self._status.labels(status).set(status == progress.status)
        self._lag.set(progress.lag_records)
        self._partitions.set(len(progress.partitions))
        self._windows.labels("memory").set(progress.windows_in_memory)
        self._windows.labels("disk").set(progress.windows_on_disk)
        self._watermark_ms = progress.watermark_ms

    def _delay_s(self) -> float:
        if self._watermark_ms is None:
            return float("nan")
        return (self._clock_ms() - self._watermark_ms) / 1000
