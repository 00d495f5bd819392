"""A broker that is killed and comes back over its log: the loop waits, goes on by itself and learns each row
once, and rankings are answered all the while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from broker_outages import library_cleaned_up

from feature_store.datasets.requests import play_requests
from infra.broker import EmbeddedBroker
from infra.child_process import end_with_parent, free_port
from infra.demo.audit import examples, row_mismatches
from infra.demo.processes import Family
from infra.playing import PlayConfig, Player, encoded
from infra.recipes.movielens import movielens
from infra.settings import Settings
from infra.wiring.recipes import now_ms
from recsys.snapshots import read_manifest, snapshots
from serving.proto.recommender_pb2 import RankRequest
from serving.proto.recommender_pb2_grpc import RecommenderStub
from streaming.errors import SinkUnavailable
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics
from streaming.topics import ALL_TOPICS, EXAMPLES

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")

RECIPE = movielens()
ROWS = 4_000
USERS, FILMS = 300, 200
ROWS_PER_S = 250
ANSWER_WITHIN_S = 2.0
NOTICED_WITHIN_S = 40.0
"""A joiner in the middle of a request waits for its answer before it calls the broker away."""


@pytest.fixture
def object_store() -> Iterator[dict[str, str]]:
    """An S3 server with an empty bucket "tansu"; the environment that leads to it."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent,  # noqa: PLW1509
    ) as server:
        try:
            deadline = time.monotonic() + 30
            while not made_bucket(port):
                assert time.monotonic() < deadline, "the object store did not come up"
                time.sleep(0.05)
            yield {
                "AWS_ACCESS_KEY_ID": "any",
                "AWS_SECRET_ACCESS_KEY": "any",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
                "AWS_ALLOW_HTTP": "true",
            }
        finally:
            server.terminate()


def made_bucket(port: int) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/tansu", method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except OSError:
        return False


def write_log(folder: Path) -> int:
    """A log in MovieLens's own layout, no row twice; how many of its ratings are good."""
    rng = np.random.default_rng(5)
    folder.mkdir()
    users, films = rng.integers(1, USERS + 1, ROWS), rng.integers(1, FILMS + 1, ROWS)
    ratings = rng.choice([2, 5], ROWS)
    lines = zip(users, films, ratings, 956_000_000 + 50 * np.arange(ROWS), strict=True)
    (folder / "ratings.dat").write_text("".join("::".join(map(str, line)) + "\n" for line in lines))
    (folder / "users.dat").write_text(
        "".join(f"{user}::{'FM'[user % 2]}::25::{user % 20}::{user}\n" for user in range(1, USERS + 1))
    )
    (folder / "movies.dat").write_text(
        "".join(f"{film}::Film {film} (1990)::Comedy\n" for film in range(1, FILMS + 1))
    )
    return int((ratings == 5).sum())


class PatientSink:
    """A product's EventSink: what may not have arrived is sent again until it has. One caller."""

    def __init__(self, sink: KafkaSink) -> None:
        self.sink, self.is_over = sink, threading.Event()
        self.unsure: list[tuple[str, bytes, bytes]] = []

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        self.unsure.append((topic, key, value))
        try:
            self.sink.publish(topic, key, value, partition=partition)
        except SinkUnavailable:
            self.send_again()
        if len(self.unsure) >= 500:
            self.flush()

    def flush(self) -> None:
        while not self.is_over.is_set():
            with suppress(SinkUnavailable):
                self.sink.flush()
                self.unsure.clear()
                return
            self.send_again()

    def send_again(self) -> None:
        """From the first that may be missing, without a gap."""
        while not self.is_over.is_set():
            with suppress(SinkUnavailable):
                for topic, key, value in self.unsure:
                    self.sink.publish(topic, key, value)
                return

    def position(self, topic: str, partition: int) -> int:
        return self.sink.position(topic, partition)


@dataclass(slots=True)
class Scene:
    """The loop's processes, and a product that plays the log and asks to rank. Driven from one thread."""

    broker: EmbeddedBroker
    family: Family
    folder: Path
    patient: PatientSink
    address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    player: threading.Thread = field(init=False)
    channel: grpc.Channel | None = None
    answers: int = 0

    def __post_init__(self) -> None:
        self.player = threading.Thread(target=self.play)

    def start(self) -> None:
        """Return when rankings are answered."""
        recipe = ["--recipe", RECIPE.name]
        self.family.start("join", ["join", *recipe])
        self.family.start("train", ["train", *recipe])
        export = ["--export-rows", str(self.folder / "served-rows"), "--data-dir", str(self.folder / "ml")]
        self.family.start("serve", ["serve", *recipe, "--address", self.address, *export])
        # After the forks: gRPC's threads do not go well with them.
        self.channel = grpc.insecure_channel(self.address)
        deadline = time.monotonic() + 60
        while not self.answers:
            assert time.monotonic() < deadline, "the server did not come up"
            self.family.check()
            with suppress(grpc.RpcError):
                self.rank()
            time.sleep(0.1)
        self.player.start()

    def play(self) -> None:
        """All of the log, as a product would fill the topics."""
        requests = encoded(play_requests(RECIPE.load(self.folder / "ml", Settings()), RECIPE.schema))
        config = PlayConfig(rows_per_s=ROWS_PER_S)
        Player(config, self.patient, clock_ms=now_ms, learned=lambda: 0.0).play(requests)

    def rank(self) -> None:
        """Nobody is shown the answer: it makes no examples."""
        request = RankRequest(user_id=1 + self.answers % USERS, item_ids=[1, 2, 3], shadow=True)
        answer = RecommenderStub(self.channel).Rank(request, timeout=ANSWER_WITHIN_S)
        assert len(answer.scores) == 3
        self.answers += 1

    def metric(self, child: str, name: str) -> float:
        return self.family.children[child].metrics().get(name, 0.0)

    def learned(self) -> float:
        return self.metric("train", "training_examples_total")

    def until(self, what: str, is_done: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """All the while every process lives, and rankings are answered in time."""
        deadline = time.monotonic() + timeout_s
        while not is_done():
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
            self.family.check()
            self.rank()
            time.sleep(0.1)

    def kill_broker_for(self, seconds: float) -> None:
        """Return when it is there again; meanwhile the joiner must have said that it falls behind."""
        assert self.broker.pid is not None
        os.kill(self.broker.pid, signal.SIGKILL)
        self.broker.stop()
        back_at, answers = time.monotonic() + seconds, self.answers
        if seconds > NOTICED_WITHIN_S:
            away = "streaming_join_status{status=broker_away}"
            self.until("the joiner to notice", lambda: self.metric("join", away) == 1, NOTICED_WITHIN_S)
        self.until("the outage to end", lambda: time.monotonic() >= back_at)
        assert self.metric("join", "streaming_join_delay_seconds") >= seconds
        assert self.answers - answers > seconds, "so few rankings prove nothing"
        self.broker.start()

    def stop(self) -> Path:
        """End the trainer and, when it has caught up, the server; the last snapshot."""
        assert self.family.children["train"].stop() == 0
        final = snapshots(self.folder / "state" / RECIPE.name / "snapshots")[-1]
        sequence = read_manifest(final).table_sequence
        self.until("the replica", lambda: self.metric("serve", "serving_table_sequence") == sequence)
        assert self.family.children["serve"].stop() == 0
        return final


@pytest.fixture
def scene(object_store: dict[str, str], tmp_path: Path) -> Iterator[Scene]:
    port = free_port()
    broker = EmbeddedBroker(port=port, storage="s3://tansu/", environment=object_store)
    environment = {
        "HEADRACE_KAFKA_BOOTSTRAP": broker.bootstrap,
        "HEADRACE_STATE_DIR": str(tmp_path / "state"),
        "OMP_NUM_THREADS": "1",
    }
    with library_cleaned_up(), broker:
        create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
        with closing(KafkaSink(KafkaConfig(bootstrap=broker.bootstrap))) as sink:
            family = Family(tmp_path / "logs", environment)
            scene = Scene(broker, family, tmp_path, PatientSink(sink))
            try:
                yield scene
            finally:
                scene.patient.is_over.set()
                if scene.player.ident is not None:
                    scene.player.join()
                if scene.channel is not None:
                    scene.channel.close()
                family.stop_all()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("away_s", [8, pytest.param(60, marks=pytest.mark.faults)])
def test_a_broker_killed_in_mid_run_costs_time_and_nothing_else(scene: Scene, away_s: int) -> None:
    n_good = write_log(scene.folder / "ml")
    scene.start()
    scene.until("a quarter of the log", lambda: scene.learned() >= ROWS // 4)
    scene.kill_broker_for(away_s)
    assert scene.learned() < ROWS, "all was learned before: this test would prove nothing"
    scene.until("all to be learned", lambda: scene.learned() >= ROWS)
    scene.player.join()
    final = scene.stop()
    with closing(KafkaSource(KafkaConfig(bootstrap=scene.broker.bootstrap), [(EXAMPLES, 0)])) as source:
        batches = list(examples(source, final))
    ids = np.concatenate([batch.example_id_B for batch in batches])
    assert (len(ids), len(np.unique(ids))) == (ROWS, ROWS)
    assert read_manifest(final).examples == ROWS
    assert sum(int(batch.label_B.sum()) for batch in batches) == n_good, "feedback was lost"
    assert row_mismatches(RECIPE, final, scene.folder / "served-rows") == 0
