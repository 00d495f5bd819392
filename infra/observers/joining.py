"""Progress of a joiner."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from streaming.label_join import JoinCounters


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
