"""The dashboard shows what the processes really offer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from infra.observers.joining import JoinTelemetry
from infra.observers.serving import ServingTelemetry
from infra.observers.training import TrainingTelemetry
from serving.follower import ReplicaFollower
from serving.replica import Replica
from streaming.deltas import DeltaPublisher, DeltaSubscriber
from streaming.memory_log import MemoryLog
from streaming.topics import DELTAS
from training.sync import DeltaSync, SyncConfig

DASHBOARD = Path(__file__).parents[2] / "infra" / "dashboards" / "headrace.json"
PANELS = json.loads(DASHBOARD.read_text())["panels"]
NAME = re.compile(r"\b(?:streaming|training|serving|process)_[a-z_]+")


class NoSnapshots:
    """A SnapshotSource of nothing."""

    def model(self) -> str | None:
        return None

    def candidates(self, model: str) -> list[Path]:
        return []


@pytest.fixture(scope="module")
def offered(small: Any) -> set[str]:
    """Every metric that a joiner, a trainer or a server offers."""
    registry, log, learner = CollectorRegistry(), MemoryLog(), small.learner()
    ProcessCollector(registry=registry)
    JoinTelemetry(registry, lambda: 0)
    sync = DeltaSync(learner, DeltaPublisher(log), SyncConfig(model="m", incarnation=1))
    TrainingTelemetry(registry, learner.table, sync, log, clock_ms=lambda: 0)
    replica = Replica(small.scorer, 0)
    follower = ReplicaFollower(replica, DeltaSubscriber(log.source([(DELTAS, 0)])), NoSnapshots())
    ServingTelemetry(registry, replica, follower, lambda: 0, impressions_lost=lambda: 0)
    names = {family.name for family in registry.collect()}
    return names | {f"{name}{end}" for name in names for end in ("_total", "_bucket")}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_shows_metrics_that_exist(panel: dict[str, Any], offered: set[str]) -> None:
    used = {name for target in panel["targets"] for name in NAME.findall(target["expr"])}
    assert used
    assert used <= offered


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in PANELS]
    assert len(set(places)) == len(places)
