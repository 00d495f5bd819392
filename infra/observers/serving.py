"""What a server answers, and how old its parameters are."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.follower import ReplicaFollower
from serving.replica import Replica


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
