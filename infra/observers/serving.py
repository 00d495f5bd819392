"""What a server answers, and how old its parameters are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.follower import FollowerStatus, ReplicaFollower
from serving.replica import ApplyOutcome, Replica


class ServingTelemetry:
    """Answers by code and time, and how old the parameters are."""

    def __init__(
        self,
        registry: CollectorRegistry,
        replica: Replica,
        follower: ReplicaFollower,
        clock_ms: Callable[[], int],
        *,
        impressions_lost: Callable[[], float],
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
        age = Gauge("serving_parameter_age_ms", "Since the newest parameters were sealed", registry=registry)
        age.set_function(lambda: _age_ms(replica, clock_ms))
        sequence = Gauge("serving_table_sequence", "Newest applied delta", registry=registry)
        sequence.set_function(lambda: replica.parameters.table_sequence if replica.ready.is_set() else -1)
        lost = Gauge("serving_impressions_lost_total", "Shown, but not learned from", registry=registry)
        lost.set_function(impressions_lost)
        skew = Gauge("serving_dense_skew_ms", "Event time of dense weights ahead of rows", registry=registry)
        skew.set_function(lambda: replica.parameters.skew_ms if replica.ready.is_set() else float("nan"))
        doing = Gauge("serving_follower_status", "1 for what it is doing", ["status"], registry=registry)
        for status in FollowerStatus:
            doing.labels(status.value).set_function(partial(_is_doing, follower, status))
        # Read when asked: a replica in trouble must show it while nobody asks for rankings.
        applied = Gauge("serving_deltas_total", "Deltas by outcome", ["outcome"], registry=registry)
        for outcome in ApplyOutcome:
            applied.labels(outcome.value).set_function(partial(follower.outcomes.__getitem__, outcome))

    def answered(self, code: str, seconds: float) -> None:
        """Count one answer."""
        self._answers.labels(code).inc()
        self._seconds.observe(seconds)


def _is_doing(follower: ReplicaFollower, status: FollowerStatus) -> float:
    return float(follower.status is status)


def _age_ms(replica: Replica, clock_ms: Callable[[], int]) -> float:
    age_ms = replica.parameters.age_ms(clock_ms()) if replica.ready.is_set() else None
    return float("nan") if age_ms is None else age_ms
