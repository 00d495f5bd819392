"""The follower boots, follows, swaps and goes on, whatever its log and its disk do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import snapshots, write_snapshot
from serving.errors import NotReady
from serving.follower import ReplicaFollower
from serving.replica import ApplyOutcome, Replica, newest_first
from streaming.deltas import DeltaPublisher, DeltaSubscriber
from streaming.errors import OffsetLost, SourceUnavailable, StreamingError
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
        return self._source.end_offsets()


class Shelf:
    """A SnapshotSource over a folder, whose model the test chooses and which raises when told to."""

    def __init__(self, folder: Path, heartbeat: Heartbeat) -> None:
        self._folder, self._heartbeat = folder, heartbeat
        self.chosen: str | None = "small-1"
        self.errors: list[Exception] = []

    def model(self) -> str | None:
        self._heartbeat.beat()
        if self.errors:
            raise self.errors.pop(0)
        return self.chosen

    def candidates(self, model: str) -> list[Path]:
        return newest_first(snapshots(self._folder / model), model)


class Wire:
    """An EventSink into a log that does to each record what ``fate`` says. One caller."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.fate = "arrives"

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        if self.fate == "damaged":
            value = value[:-9] + bytes([value[-9] ^ 1]) + value[-8:]
        if self.fate != "lost":
            self._log.publish(topic, key, value, partition=partition)

    def flush(self) -> None:
        pass

    def position(self, topic: str, partition: int) -> int:
        return self._log.position(topic, partition)


class Shard:
    """One start of a trainer: it learns, seals into the log and saves into the folder."""

    def __init__(
        self, small: Any, wire: Wire, folder: Path, *, incarnation: int = 1, model: str = "small-1"
    ) -> None:
        self._small, self._folder = small, folder / model
        self.learner = small.learner()
        config = SyncConfig(model=model, incarnation=incarnation, rows_per_delta=3)
        self._sync = DeltaSync(self.learner, DeltaPublisher(wire), config)
        self._seed = 100 * incarnation + sum(model.encode())
        self._examples = 0

    def learn_and_seal(self) -> None:
        self._seed += 1
        self._examples += 5
        self._small.learn(self.learner, self._seed)
        assert self._sync.seal(as_of_ms=self._seed, sealed_at_ms=1)

    def save(self) -> Path:
        assert self._sync.seal(as_of_ms=self._seed, sealed_at_ms=1)
        manifest = self._small.manifest(
            model=self._sync.config.model,
            incarnation=self._sync.config.incarnation,
            table_sequence=self._sync.table_sequence,
            dense_sequence=self._sync.dense_sequence,
            delta_position=self._sync.position(),
            examples=self._examples,
        )
        metrics = ProgressiveMetrics(60_000).state()
        dense = self.learner.dense_state()
        return write_snapshot(self._folder, manifest, self.learner.table, dense, metrics)


class Scene:
    """A log, a folder, a replica and its follower."""

    def __init__(self, small: Any, folder: Path) -> None:
        self.small, self.folder, self.log, self.heartbeat = small, folder, MemoryLog(), Heartbeat()
        self.wire = Wire(self.log)
        self.source = Source(self.log.source([AT]), self.heartbeat)
        self.shelf = Shelf(folder, self.heartbeat)
        self.replica = Replica(small.scorer, small.schema.fingerprint)
        self.on_applied: Callable[[], None] = lambda: None
        self.follower = ReplicaFollower(
            self.replica,
            DeltaSubscriber(self.source),
            self.shelf,
            check_period_s=0.02,
            on_applied=self._tell,
        )

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


def test_it_boots_with_the_first_snapshot_and_then_follows(scene: Scene) -> None:
    shard = scene.shard()
    with scene.following():
        scene.heartbeat.turns(2)
        with pytest.raises(NotReady):
            _ = scene.replica.parameters
        shard.learn_and_seal()
        shard.save()
        scene.until_serves(shard)
        for _ in range(5):
            shard.learn_and_seal()
        scene.until_serves(shard)
    assert outcomes(scene, ApplyOutcome.SNAPSHOT_NEEDED) == 0


def outcomes(scene: Scene, outcome: ApplyOutcome) -> int:
    return scene.follower.outcomes[outcome]


@pytest.mark.parametrize("fate", ["lost", "damaged"])
def test_after_a_gap_old_parameters_serve_until_a_newer_snapshot_comes(scene: Scene, fate: str) -> None:
    shard = scene.shard()
    shard.save()
    with scene.following():
        scene.until_serves(shard)
        before = scene.replica.parameters
        scene.wire.fate = fate
        shard.learn_and_seal()
        scene.wire.fate = "arrives"
        shard.learn_and_seal()
        scene.heartbeat.until(lambda: outcomes(scene, ApplyOutcome.SNAPSHOT_NEEDED) > 0)
        scene.heartbeat.turns(3)
        assert scene.replica.parameters is before, "the snapshot that is there is no newer than the replica"
        assert (before.table_sequence, len(before.table)) == (0, 0)
        shard.save()
        scene.until_serves(shard)
        shard.learn_and_seal()
        scene.until_serves(shard)


def test_a_log_that_is_away_does_not_make_it_forget_that_it_needs_a_snapshot(scene: Scene) -> None:
    shard = scene.shard()
    shard.save()
    with scene.following():
        scene.until_serves(shard)
        scene.wire.fate = "lost"
        shard.learn_and_seal()
        scene.wire.fate = "arrives"
        shard.learn_and_seal()
        scene.heartbeat.until(lambda: outcomes(scene, ApplyOutcome.SNAPSHOT_NEEDED) > 0)
        scene.source.poll_errors += [SourceUnavailable("told to")] * 2
        scene.heartbeat.until(lambda: not scene.source.poll_errors)
        scene.heartbeat.turns(1)
        shard.save()
        scene.until_serves(shard)


def test_a_log_that_is_away_for_a_while_costs_nothing(scene: Scene) -> None:
    shard = scene.shard()
    shard.save()
    scene.source.poll_errors += [SourceUnavailable("told to")] * 2
    with scene.following():
        shard.learn_and_seal()
        scene.until_serves(shard)
    assert +scene.follower.outcomes == {ApplyOutcome.APPLIED: scene.follower.outcomes.total()}


def test_where_the_log_has_moved_on_a_newer_snapshot_is_taken(scene: Scene) -> None:
    shard = scene.shard()
    shard.save()
    with scene.following():
        scene.until_serves(shard)
        scene.wire.fate = "lost"
        shard.learn_and_seal()
        shard.save()
        # Nothing arrives any more that could tell of a gap.
        scene.source.poll_errors.append(OffsetLost("told to"))
        scene.until_serves(shard)


def test_a_restarted_trainer_is_followed_from_its_own_snapshot(scene: Scene) -> None:
    first = scene.shard()
    first.save()
    with scene.following():
        for _ in range(3):
            first.learn_and_seal()
        scene.until_serves(first)
        second = scene.shard(incarnation=2)
        second.learn_and_seal()
        scene.heartbeat.until(lambda: outcomes(scene, ApplyOutcome.SNAPSHOT_NEEDED) > 0)
        assert scene.serves(first), "the old start's rows serve until the new one has saved"
        second.save()
        scene.until_serves(second)
        first.learn_and_seal()
        second.learn_and_seal()
        scene.until_serves(second)
    assert outcomes(scene, ApplyOutcome.STALE) > 0


def test_another_model_is_swapped_in_and_back_when_the_choice_changes(scene: Scene) -> None:
    one, other = scene.shard(), scene.shard(model="other-1")
    one.save()
    other.save()
    with scene.following():
        scene.until_serves(one)
        other.learn_and_seal()
        one.learn_and_seal()
        scene.until_serves(one)
        scene.shelf.chosen = "other-1"
        scene.until_serves(other)
        scene.shelf.chosen = "small-1"
        scene.until_serves(one)
    assert outcomes(scene, ApplyOutcome.FOREIGN) > 0


def test_a_log_that_cannot_be_sought_at_once_is_sought_again(scene: Scene) -> None:
    one, other = scene.shard(), scene.shard(model="other-1")
    one.save()
    other.save()
    with scene.following():
        one.learn_and_seal()
        other.learn_and_seal()
        scene.until_serves(one)
        scene.source.seek_errors += [SourceUnavailable("told to")] * 2
        scene.shelf.chosen = "other-1"
        # What the other model learned lies behind in the log, and nothing comes after it.
        scene.until_serves(other)


@pytest.mark.parametrize(
    "error", [StreamingError("told to"), FileNotFoundError("told to"), RuntimeError("told to")]
)
def test_a_snapshot_source_that_raises_is_asked_again(scene: Scene, error: Exception) -> None:
    shard = scene.shard()
    shard.save()
    scene.shelf.errors.append(error)
    with scene.following():
        scene.until_serves(shard)
        shard.learn_and_seal()
        scene.shelf.errors.append(error)
        scene.until_serves(shard)


def test_a_source_that_breaks_a_promise_does_not_end_the_following(scene: Scene) -> None:
    shard = scene.shard()
    shard.save()
    scene.source.poll_errors.append(ValueError("no promise covers this"))
    with scene.following():
        shard.learn_and_seal()
        scene.until_serves(shard)


def test_a_listener_that_raises_does_not_end_the_following(scene: Scene) -> None:
    shard, calls = scene.shard(), []

    def raise_once() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("told to")

    scene.on_applied = raise_once
    shard.save()
    with scene.following():
        shard.learn_and_seal()
        scene.until_serves(shard)


def test_a_damaged_snapshot_is_not_served_and_the_next_one_is(scene: Scene) -> None:
    shard = scene.shard()
    first = shard.save()
    with scene.following():
        scene.until_serves(shard)
        before = scene.replica.parameters
        second = scene.shard(incarnation=2)
        second.learn_and_seal()
        scene.heartbeat.until(lambda: outcomes(scene, ApplyOutcome.SNAPSHOT_NEEDED) > 0)
        damaged = write_damaged(second, first)
        scene.heartbeat.turns(3)
        assert scene.replica.parameters is before
        assert damaged.is_dir()
        second.learn_and_seal()
        second.save()
        scene.until_serves(second)


def test_beside_a_damaged_snapshot_it_boots_from_the_one_before(scene: Scene) -> None:
    shard = scene.shard()
    first = shard.save()
    shard.learn_and_seal()
    write_damaged(shard, first)
    with scene.following():
        scene.until_serves(shard)


def write_damaged(shard: Shard, beside: Path) -> Path:
    """A snapshot whose manifest is whole and whose weights are not."""
    path = shard.save()
    hidden = path.rename(beside.with_name(f".{path.name}"))
    file = hidden / "dense.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return hidden.rename(path)
