"""A server starts while the broker is away, serves from a snapshot, and follows once it can."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.broker import EmbeddedBroker
from infra.child_process import free_port
from infra.recipes.movielens import movielens
from infra.settings import Settings
from infra.wiring import server as wiring
from infra.wiring.kafka import kafka_config
from infra.wiring.recipes import make_table, snapshot_folder
from infra.wiring.server import ServerOptions, build_server
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.ranking.learner import RankingLearner
from recsys.snapshots import write_snapshot
from serving.follower import FollowerStatus
from streaming.errors import SourceUnavailable
from streaming.kafka import create_topics
from streaming.late_source import LateSource
from streaming.memory_log import MemoryLog
from streaming.topics import ALL_TOPICS

AT = ("topic", 0)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")
def test_without_its_broker_a_server_serves_from_a_snapshot_and_follows_once_the_broker_is_there(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "kafka_config", lambda one: kafka_config(one, connect_timeout_s=0.5))
    no_data: Any = None
    recipe = replace(movielens(), load=lambda folder, settings: no_data)
    port = free_port()
    settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}", state_dir=tmp_path)
    table = make_table(recipe)
    dense = RankingLearner(table, recipe.tower, recipe.pooling).dense_state()
    manifest = small.manifest(model="m", schema_fingerprint=recipe.schema.fingerprint)
    metrics = ProgressiveMetrics(60_000).state()
    write_snapshot(snapshot_folder(recipe, settings), manifest, table, dense, metrics)
    server = build_server(recipe, settings, ServerOptions())
    server.follower.start()
    try:
        assert server.replica.ready.wait(20)
        until(lambda: server.follower.status is FollowerStatus.LOG_UNREACHABLE)
        with EmbeddedBroker(port=port) as broker:
            create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
            until(lambda: server.follower.status is FollowerStatus.FOLLOWING)
    finally:
        server.close()


def test_a_late_source_is_tried_again_until_it_opens_and_opened_once() -> None:
    log, attempts = MemoryLog(), []
    log.publish(*AT[:1], b"", b"one", partition=0)

    def make() -> Any:
        attempts.append(1)
        if len(attempts) < 4:
            raise SourceUnavailable("no broker")
        return log.source([AT])

    source = LateSource(make)
    for call in (source.positions, source.end_offsets, lambda: source.seek({AT: 0})):
        with pytest.raises(SourceUnavailable):
            call()
    source.seek({AT: 0})
    assert [record.value for record in source.poll(max_records=1, timeout_s=0)] == [b"one"]
    assert (source.positions(), source.end_offsets(), len(attempts)) == ({AT: 1}, {AT: 1}, 4)
