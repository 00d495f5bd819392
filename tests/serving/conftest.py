"""A trainer's shard, the log and folder it writes to, and a replica that follows them in one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import snapshots, write_snapshot
from serving.follower import FollowerConfig, ReplicaFollower
from serving.replica import Replica, newest_first
from streaming.deltas import DeltaPublisher, DeltaSubscriber
from streaming.errors import SinkUnavailable
from streaming.memory_log import LogSource, MemoryLog
from streaming.source import Partition, Record
from streaming.topics import DELTAS
from training.sync import DeltaSync, SyncConfig

AT = (DELTAS, 0)


class Heartbeat:
    """Lets a test wait until the follower has brought something about. Any number of threads."""

    def __init__(self) -> None:
        self._turned = threading.Condition()
        self._turns = 0

    def beat(self) -> None:
        with self._turned:
            self._turns += 1
            self._turned.notify_all()

    def until(self, is_so: Callable[[], bool]) -> None:
        with self._turned:
            assert self._turned.wait_for(is_so, timeout=30), "the follower did not get there in 30 s"

    def turns(self, count: int) -> None:
        """Wait until the follower has gone round so many times."""
        goal = self._turns + count
        self.until(lambda: self._turns >= goal)


class Source:
    """An EventSource over a log that raises what it is told to, once each."""

    def __init__(self, source: LogSource, heartbeat: Heartbeat) -> None:
        self._source, self._heartbeat = source, heartbeat
        self.poll_errors: list[Exception] = []
        self.seek_errors: list[Exception] = []
        self.end_errors: list[Exception] = []

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        self._heartbeat.beat()
        if self.poll_errors:
            raise self.poll_errors.pop(0)
        return self._source.poll(max_records=max_records, timeout_s=min(timeout_s, 0.01))

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        if self.seek_errors:
            raise self.seek_errors.pop(0)
        self._source.seek(offsets)

    def positions(self) -> dict[Partition, int]:
        return self._source.positions()

    def end_offsets(self) -> dict[Partition, int]:
        self._heartbeat.beat()
        if self.end_errors:
            raise self.end_errors.pop(0)
        return self._source.end_offsets()


class Shelf:
    """A SnapshotSource over a folder, whose model the test chooses; slow, or raising, when told to."""

    def __init__(self, folder: Path, heartbeat: Heartbeat) -> None:
        self._folder, self._heartbeat = folder, heartbeat
        self.chosen: str | None = "small-1"
        self.errors: list[Exception] = []
        self.answers = threading.Event()
        self.answers.set()
        self.is_asked = threading.Event()

    def model(self) -> str | None:
        self._heartbeat.beat()
        self.is_asked.set()
        assert self.answers.wait(30)
        if self.errors:
            raise self.errors.pop(0)
        return self.chosen

    def candidates(self, model: str) -> list[Path]:
        return newest_first(snapshots(self._folder / model), model)


class Wire:
    """An EventSink into a log that does to each record what ``fate`` says. One caller.

    halved: of what is published until the next flush the first is lost, and the flush fails.
    """

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.fate = "arrives"

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        if self.fate == "damaged":
            value = value[:-9] + bytes([value[-9] ^ 1]) + value[-8:]
        if self.fate not in ("lost", "halved"):
            self._log.publish(topic, key, value, partition=partition)
        if self.fate == "halved":
            self.fate = "unsure"

    def flush(self) -> None:
        if self.fate in ("halved", "unsure"):
            raise SinkUnavailable("told to fail")

    def position(self, topic: str, partition: int) -> int:
        return self._log.position(topic, partition)


class Shard:
    """One start of a trainer: it learns, seals into the log and saves into the folder."""

    def __init__(
        self,
        small: Any,
        wire: Wire,
        folder: Path,
        *,
        incarnation: int = 1,
        model: str = "small-1",
        first_seed: int | None = None,
        codec: Any = "fp32",
    ) -> None:
        self._small, self._folder = small, folder / model
        self.learner = small.learner()
        config = SyncConfig(model=model, incarnation=incarnation, codec=codec, delta_bytes=620)
        self._sync = DeltaSync(self.learner, DeltaPublisher(wire), config)
        self.seed = 100 * incarnation + sum(model.encode()) if first_seed is None else first_seed
        self._examples = 0

    def learn_and_fail_to_seal(self) -> None:
        self.seed += 1
        self._examples += 5
        self._small.learn(self.learner, self.seed)
        assert not self._sync.seal(as_of_ms=self.seed, sealed_at_ms=1)

    def learn_and_seal(self) -> None:
        self.seed += 1
        self._examples += 5
        self._small.learn(self.learner, self.seed)
        assert self._sync.seal(as_of_ms=self.seed, sealed_at_ms=1)

    @property
    def table_sequence(self) -> int:
        return self._sync.table_sequence

    def save(self) -> Path:
        assert self._sync.seal(as_of_ms=self.seed, sealed_at_ms=1)
        manifest = self._small.manifest(
            model=self._sync.config.model,
            incarnation=self._sync.config.incarnation,
            table_sequence=self._sync.table_sequence,
            dense_sequence=self._sync.dense_sequence,
            delta_position=self._sync.position(),
            as_of_ms=self.seed,
            examples=self._examples,
        )
        metrics = ProgressiveMetrics(60_000).state()
        dense = self.learner.dense_state()
        return write_snapshot(self._folder, manifest, self.learner.table, dense, metrics)


class Scene:
    """A log, a folder, a replica and its follower."""

    def __init__(self, small: Any, folder: Path, **config: Any) -> None:
        self.small, self.folder, self.log, self.heartbeat = small, folder, MemoryLog(), Heartbeat()
        self.wire = Wire(self.log)
        self.shelf = Shelf(folder, self.heartbeat)
        self.on_applied: Callable[[], None] = lambda: None
        self.config = FollowerConfig(**({"check_period_s": 0.02, "quiet_s": 0.1} | config))
        self.replica, self.source, self.follower = self.another()

    def another(self) -> tuple[Replica, Source, ReplicaFollower]:
        """One more replica of the same log and folder."""
        replica = Replica(self.small.scorer, self.small.schema.fingerprint)
        source = Source(self.log.source([AT]), self.heartbeat)
        subscriber = DeltaSubscriber(source)
        follower = ReplicaFollower(replica, subscriber, self.shelf, self.config, on_applied=self._tell)
        return replica, source, follower

    def _tell(self) -> None:
        self.on_applied()

    def shard(self, **settings: Any) -> Shard:
        return Shard(self.small, self.wire, self.folder, **settings)

    @contextmanager
    def following(self) -> Iterator[None]:
        self.follower.start()
        try:
            yield
        finally:
            self.follower.stop()

    def serves(self, shard: Shard) -> bool:
        if not self.replica.ready.is_set():
            return False
        table = self.replica.parameters.table
        return bool(self.small.rows_of(table) == self.small.rows_of(shard.learner.table))

    def until_serves(self, shard: Shard) -> None:
        self.heartbeat.until(lambda: self.serves(shard))


@pytest.fixture
def scene(small: Any, tmp_path: Path) -> Scene:
    return Scene(small, tmp_path)


@pytest.fixture
def make_scene(small: Any, tmp_path: Path) -> Callable[..., Scene]:
    """``make_scene(**config)``: a scene whose follower has other settings."""
    return lambda **config: Scene(small, tmp_path, **config)
