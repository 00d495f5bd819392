"""The API over a real server: answers, refusals, deadlines, health, reflection, impressions."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from recsys.errors import ConfigError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.features import RaggedKeys
from recsys.snapshots import write_snapshot
from serving.errors import ServingError
from serving.impressions import ImpressionLog
from serving.pipeline import RankLimits, RankQuery
from serving.proto import recommender_pb2 as wire
from serving.proto import recommender_pb2_grpc
from serving.replica import Replica
from serving.server import SERVICE, serve
from serving.service import RecommenderService, ServiceConfig
from streaming.errors import SinkUnavailable
from streaming.events import decode_impression
from streaming.memory_log import MemoryLog
from streaming.sink import EventSink
from streaming.topics import IMPRESSIONS

NOW_MS = 1_700_000_000_000
Code = grpc.StatusCode


class Features:
    """A FeatureSource of two ids per row. While ``gate`` is closed, whoever asks waits; any number may."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self.gate, self.waiting = threading.Event(), threading.Semaphore(0)
        self.gate.set()
        self.asked: list[RankQuery] = []

    def keys(self, query: RankQuery) -> RaggedKeys:
        self.asked.append(query)
        self.waiting.release()
        assert self.gate.wait(timeout=30)
        users_N = np.full(len(query.item_ids_N), query.user_id, np.int64)
        columns = {"user.id": users_N, "item.id": query.item_ids_N.astype(np.int64)}
        keys: RaggedKeys = self._schema.encode(columns, len(users_N))
        return keys


class Answers:
    """A RankObserver that writes down what it is told."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.told = threading.Semaphore(0)

    def answered(self, code: str, seconds: float) -> None:
        self.codes.append(code)
        self.told.release()


class BrokenSink:
    """An EventSink whose log is away."""

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        raise SinkUnavailable("told to refuse")

    def flush(self) -> None:
        raise SinkUnavailable("told to refuse")

    def position(self, topic: str, partition: int) -> int:
        return 0


class Client:
    """Stubs of one channel, and the parts behind the server that a test looks at."""

    def __init__(self, scene: Scene, channel: grpc.aio.Channel, address: str) -> None:
        self.scene, self.address = scene, address
        self.stub = recommender_pb2_grpc.RecommenderStub(channel)
        self.health_stub = health_pb2_grpc.HealthStub(channel)
        self.reflection = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def rank(self, *, timeout: float = 20.0, **request: Any) -> wire.RankResponse:
        plain: dict[str, Any] = {"user_id": 3, "item_ids": [1, 2, 3, 4, 5]}
        answer: wire.RankResponse = await self.stub.Rank(
            wire.RankRequest(**(plain | request)), timeout=timeout
        )
        return answer

    async def refusal(self, **request: Any) -> tuple[Code, str]:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.rank(**request)
        return refused.value.code(), refused.value.details() or ""

    async def health(self, service: str = SERVICE) -> int:
        answer = await self.health_stub.Check(health_pb2.HealthCheckRequest(service=service))
        return int(answer.status)


class Scene:
    """A service and all that it stands on."""

    def __init__(self, small: Any, folder: Path) -> None:
        self.small, self.folder, self.log, self.observer = small, folder, MemoryLog(), Answers()
        self.sink: EventSink = self.log
        self.impression_log: ImpressionLog | None = None
        self.features = Features(small.schema)
        self.replica = Replica(small.scorer, small.schema.fingerprint)
        self.settings: dict[str, Any] = {"deadline_ms": 20_000}

    def load(self) -> None:
        learner = self.small.learner()
        for seed in range(4):
            self.small.learn(learner, seed)
        manifest = self.small.manifest(as_of_ms=77, incarnation=2)
        metrics = ProgressiveMetrics(60_000).state()
        path = write_snapshot(self.folder, manifest, learner.table, learner.dense_state(), metrics)
        self.replica.load(path)

    def run(self, conversation: Callable[[Client], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.client() as client:
                await conversation(client)

        asyncio.run(main())

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        limits = RankLimits(domains=("home", "search"), context=frozenset({"hour"}), max_candidates=50)
        self.impression_log = ImpressionLog(self.sink, self.small.schema.fingerprint)
        service = RecommenderService(
            ServiceConfig(limits=limits, **self.settings),
            self.replica,
            self.features,
            self.impression_log,
            observer=self.observer,
            clock_ms=lambda: NOW_MS,
        )
        address, stopping = f"127.0.0.1:{free_port()}", asyncio.Event()
        server = asyncio.create_task(serve(service, self.replica, address=address, stopping=stopping))
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), 20)
                yield Client(self, channel, address)
        finally:
            self.features.gate.set()
            stopping.set()
            await server

    def impressions(self) -> list[Any]:
        """Of the answers that were given so far."""
        assert self.impression_log is not None
        assert self.impression_log.flush(timeout_s=10)
        at = (IMPRESSIONS, 0)
        return [decode_impression(record.value) for record in self.log.read(at, 0, self.log.end(at))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def scene(small: Any, tmp_path: Path) -> Scene:
    """With parameters loaded."""
    scene = Scene(small, tmp_path)
    scene.load()
    return scene


def test_the_best_come_first_with_what_they_were_scored_by(scene: Scene) -> None:
    async def conversation(client: Client) -> None:
        answer = await client.rank(top_k=3)
        query = scene.features.asked[-1]
        score_N = scene.replica.score(scene.features.keys(query)).tolist()
        ranked = sorted(zip(score_N, [1, 2, 3, 4, 5], strict=True), key=lambda pair: -pair[0])[:3]
        assert list(zip(answer.scores, answer.item_ids, strict=True)) == ranked
        assert list(answer.propensities) == [1.0] * 3
        assert (answer.policy, answer.model_version) == ("greedy", "small-1.2")
        assert (answer.parameters_as_of_ms, answer.parameter_age_ms) == (77, NOW_MS - 77)
        assert (query.domain, query.request_time_ms) == ("home", NOW_MS)

    scene.run(conversation)
    assert scene.observer.codes == ["OK"]


def test_a_request_that_cannot_be_answered_is_refused_with_its_sentence(scene: Scene) -> None:
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"item_ids": []}, "send at least one candidate"),
        ({"item_ids": list(range(51))}, "51 candidates, at most 50 are ranked"),
        ({"item_ids": [7, 7]}, "send each candidate once"),
        ({"domain": "moon"}, "domain 'moon' is unknown"),
        ({"context": {"hour": float("nan")}}, "context 'hour' is nan"),
        ({"context": {"mood": 1.0}}, "context 'mood' is unknown"),
        ({"request_time_ms": -5}, "want Unix milliseconds"),
        ({"item_ids": [1 << 20]}, "20 bits"),
        ({"user_id": 1 << 40}, "20 bits"),
    ]

    async def conversation(client: Client) -> None:
        for request, sentence in refusals:
            code, details = await client.refusal(**request)
            assert code is Code.INVALID_ARGUMENT, request
            assert sentence in details, request

    scene.run(conversation)
    assert scene.observer.codes == ["INVALID_ARGUMENT"] * len(refusals)
    assert scene.impressions() == []


def test_it_says_that_it_serves_only_once_parameters_are_loaded(small: Any, tmp_path: Path) -> None:
    scene = Scene(small, tmp_path)

    async def conversation(client: Client) -> None:
        assert await client.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        code, details = await client.refusal()
        assert (code, "no parameters are loaded yet" in details) == (Code.UNAVAILABLE, True)
        scene.load()
        watch = client.health_stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        while (await asyncio.wait_for(watch.read(), 20)).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        watch.cancel()
        assert await client.health("") == health_pb2.HealthCheckResponse.SERVING
        assert len((await client.rank()).item_ids) == 5

    scene.run(conversation)
    assert scene.observer.codes == ["UNAVAILABLE", "OK"]


@pytest.mark.parametrize("whose", ["caller", "server"])
def test_a_deadline_that_passes_is_said_and_logs_no_impression(scene: Scene, whose: str) -> None:
    scene.settings |= {"threads": 1, "deadline_ms": 500 if whose == "server" else 20_000}
    scene.features.gate.clear()

    async def conversation(client: Client) -> None:
        timeout = 0.5 if whose == "caller" else 20.0
        scored, queued = await asyncio.gather(
            client.refusal(timeout=timeout), client.refusal(timeout=timeout)
        )
        assert scored[0] is queued[0] is Code.DEADLINE_EXCEEDED
        assert len(scene.features.asked) == 1, "a request that was still queued never began"
        for _ in range(2):
            assert await asyncio.to_thread(scene.observer.told.acquire, timeout=20)
        scene.features.gate.set()
        answer = await client.rank(timeout=20.0, request_id="in-time")
        assert answer.request_id == "in-time"

    scene.run(conversation)
    assert [impression.request_id for impression in scene.impressions()] == ["in-time"]


def test_requests_beyond_the_limit_are_refused_at_once(scene: Scene) -> None:
    scene.settings |= {"max_in_flight": 2, "threads": 2}
    scene.features.gate.clear()

    async def conversation(client: Client) -> None:
        under_way = [asyncio.create_task(client.rank()) for _ in range(2)]
        for _ in under_way:
            assert await asyncio.to_thread(scene.features.waiting.acquire, timeout=20)
        code, details = await client.refusal()
        assert (code, "2 requests are in flight" in details) == (Code.RESOURCE_EXHAUSTED, True)
        scene.features.gate.set()
        assert [len((await task).item_ids) for task in under_way] == [5, 5]
        assert len((await client.rank()).item_ids) == 5

    scene.run(conversation)
    assert scene.observer.codes == ["RESOURCE_EXHAUSTED", "OK", "OK", "OK"]


def test_an_answer_logs_one_impression_of_what_was_scored_and_a_shadow_none(scene: Scene, small: Any) -> None:
    async def conversation(client: Client) -> None:
        answer = await client.rank(domain="search", top_k=2, request_id="kept", request_time_ms=NOW_MS - 9)
        await client.rank(shadow=True)
        (impression,) = scene.impressions()
        assert answer.request_id == impression.request_id == "kept"
        assert impression.item_ids_K.tolist() == list(answer.item_ids)
        assert impression.scores_K.tolist() == list(answer.scores)
        assert impression.propensities_K.tolist() == [1.0, 1.0]
        said = (impression.user_id, impression.domain, impression.policy, impression.model_version)
        assert said == (3, "search", "greedy", "small-1.2")
        assert impression.event_time_ms == NOW_MS - 9
        assert impression.schema_fingerprint == small.schema.fingerprint
        keys = [[3, 1 << 52 | item] for item in answer.item_ids]
        assert impression.keys.keys_T.reshape(2, 2).tolist() == keys
        assert scene.replica.score(impression.keys).tolist() == pytest.approx(list(answer.scores), rel=1e-6)

    scene.run(conversation)


def test_a_request_without_an_id_is_given_one_of_its_own(scene: Scene) -> None:
    async def conversation(client: Client) -> None:
        made = [(await client.rank()).request_id for _ in range(2)]
        assert all(made)
        assert len(set(made)) == 2
        assert [impression.request_id for impression in scene.impressions()] == made

    scene.run(conversation)


def test_an_answer_is_given_though_its_impression_cannot_be_logged(scene: Scene) -> None:
    scene.sink = BrokenSink()

    async def conversation(client: Client) -> None:
        assert len((await client.rank()).item_ids) == 5

    scene.run(conversation)
    assert scene.observer.codes == ["OK"]


def test_a_fault_of_the_server_is_not_counted_as_an_answer(scene: Scene) -> None:
    def fail(query: RankQuery) -> RaggedKeys:
        raise RuntimeError("told to fail")

    scene.features.keys = fail  # type: ignore[method-assign]

    async def conversation(client: Client) -> None:
        assert (await client.refusal())[0] is Code.UNKNOWN

    scene.run(conversation)
    assert scene.observer.codes == ["UNKNOWN"]


def test_the_age_of_parameters_counts_from_their_newest_seal(scene: Scene, small: Any) -> None:
    scene.replica.parameters.sealed_at_ms = NOW_MS - 400

    async def conversation(client: Client) -> None:
        assert (await client.rank()).parameter_age_ms == 400

    scene.run(conversation)


def test_reflection_lists_the_services(scene: Scene) -> None:
    async def conversation(client: Client) -> None:
        call = client.reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        answer = await call.read()
        names = {service.name for service in answer.list_services_response.service}
        assert {"headrace.serving.v1.Recommender", "grpc.health.v1.Health"} <= names

    scene.run(conversation)


def test_a_second_server_on_the_same_port_is_refused(scene: Scene) -> None:
    async def conversation(client: Client) -> None:
        service = RecommenderService(
            ServiceConfig(limits=RankLimits(domains=("home",))),
            scene.replica,
            scene.features,
            ImpressionLog(scene.log, 0),
            observer=scene.observer,
            clock_ms=lambda: NOW_MS,
        )
        with pytest.raises(ServingError, match="cannot listen on"):
            await serve(service, scene.replica, address=client.address, stopping=asyncio.Event())

    scene.run(conversation)


@pytest.mark.parametrize("name", ["deadline_ms", "max_in_flight", "threads"])
def test_a_limit_of_nothing_is_refused_when_the_config_is_built(name: str) -> None:
    with pytest.raises(ConfigError, match="must be > 0"):
        ServiceConfig(limits=RankLimits(domains=("home",)), **{name: 0})
