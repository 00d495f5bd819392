"""What is learned is what is served, whatever the log or the network does to the deltas."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import write_snapshot
from recsys.table import GroupAdagrad, SliceSpec, TableSpec, Uniform
from recsys.table.native import NativeTable
from serving.replica import ApplyOutcome, Replica
from streaming.deltas import DeltaPublisher, DenseDelta, TableDelta, decode_delta
from streaming.errors import SinkUnavailable
from streaming.memory_log import MemoryLog
from streaming.topics import DELTAS
from training.sync import DeltaSync, SyncConfig

NEEDED = ApplyOutcome.SNAPSHOT_NEEDED
AT = (DELTAS, 0)


class UnreliableSink:
    """An EventSink that does to each record what it is told. One caller.

    ok: it arrives. unsure: it arrives, but the flush fails. lost: it does not, and the flush fails.
    late: the flush fails and it arrives after what was published next. refused: publish fails.
    """

    def __init__(self, log: MemoryLog, faults: Iterator[str]) -> None:
        self._log, self._faults = log, faults
        self._late: list[bytes] = []
        self._failed = False
        self._position = 0
        self.handed_over: list[bytes] = []

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        self.handed_over.append(value)
        fault = next(self._faults, "ok")
        self._failed |= fault not in ("ok", "refused")
        if fault == "late":
            self._late.append(value)
        elif fault in ("ok", "unsure"):
            self._log.publish(DELTAS, b"", value)
            if fault == "ok":
                self._position = self._log.end(AT)
        if fault == "refused":
            raise SinkUnavailable("told to refuse")

    def flush(self) -> None:
        failed, self._failed = self._failed, False
        if failed:
            raise SinkUnavailable("told to fail")
        for value in self._late:
            self._log.publish(DELTAS, b"", value)
        self._late.clear()

    def position(self, topic: str, partition: int) -> int:
        return self._position


class Shard:
    """A learner, its sync over an unreliable log, and what its rows were at each good seal."""

    def __init__(self, small: Any, folder: Path, faults: Iterator[str], rows_per_delta: int) -> None:
        self.small, self.folder, self.log = small, folder, MemoryLog()
        self.learner = small.learner()
        self.sink = UnreliableSink(self.log, faults)
        config = SyncConfig(model="small-1", incarnation=1, rows_per_delta=rows_per_delta)
        self.sync = DeltaSync(self.learner, DeltaPublisher(self.sink), config)
        self.sealed: dict[int, dict[int, bytes]] = {0: {}}
        self.ever_sealed: set[tuple[int, bytes]] = set()
        self.empty = self.snapshot()

    def seal(self) -> bool:
        rows = self.small.rows_of(self.learner.table)
        self.ever_sealed |= set(rows.items())
        is_good = self.sync.seal(as_of_ms=1, sealed_at_ms=2)
        if is_good:
            self.sealed[self.sync.table_sequence] = rows
        return is_good

    def snapshot(self) -> Path:
        manifest = self.small.manifest(
            table_sequence=self.sync.table_sequence,
            dense_sequence=self.sync.dense_sequence,
            delta_position=self.sync.position(),
            examples=self.sync.dense_sequence,
        )
        metrics = ProgressiveMetrics(60_000).state()
        return write_snapshot(self.folder, manifest, self.learner.table, self.learner.dense_state(), metrics)

    def do(self, step: tuple[str, int]) -> None:
        what, number = step
        if what == "learn":
            self.small.learn(self.learner, number)
        elif what == "erase":
            self.learner.table.erase(self.small.keys(number % 24, (number + 5) % 24))
        else:
            self.seal()

    def deltas(self) -> list[TableDelta | DenseDelta]:
        return [decode_delta(record.value) for record in self.log.read(AT, 0, self.log.end(AT))]

    def replica(self, snapshot: Path) -> Replica:
        replica = Replica(self.small.scorer, self.small.schema.fingerprint)
        replica.load(snapshot)
        return replica

    def holds_what_was_learned(self, replica: Replica) -> bool:
        served, dense = replica.parameters, self.learner.dense_weights()
        keys = self.small.examples(99).keys
        return (
            self.small.rows_of(served.table) == self.small.rows_of(self.learner.table)
            and served.table_sequence == self.sync.table_sequence
            and served.scorer.score(keys).tobytes() == self.fresh_scores(dense, keys)
        )

    def fresh_scores(self, dense: Any, keys: Any) -> bytes:
        table, scorer = self.small.scorer()
        table.import_rows(self.learner.table.export_rows(self.learner.table.keys()))
        scorer.load_dense(dense)
        scores: bytes = scorer.score(keys).tobytes()
        return scores


STEPS = st.lists(
    st.tuples(st.sampled_from(["learn", "learn", "erase", "seal", "seal"]), st.integers(0, 60)), max_size=14
)
FAULTS = st.lists(st.sampled_from(["ok", "ok", "unsure", "lost", "late", "refused"]), max_size=25)
SIZES = st.sampled_from([1, 2, 5, 24])


@given(STEPS, SIZES)
@settings(max_examples=60, deadline=None)
def test_a_replica_that_read_the_log_holds_exactly_the_training_rows(
    small: Any, steps: list[tuple[str, int]], size: int
) -> None:
    with TemporaryDirectory() as folder:
        shard = Shard(small, Path(folder), iter(()), size)
        replica = shard.replica(shard.empty)
        for step in [*steps, ("seal", 0)]:
            shard.do(step)
        outcomes = {replica.apply(delta) for delta in shard.deltas()}
        assert outcomes == {ApplyOutcome.APPLIED}
        assert shard.holds_what_was_learned(replica)


@given(STEPS, SIZES, FAULTS)
@settings(max_examples=120, deadline=None)
def test_a_log_that_fails_between_or_within_seals_loses_nothing(
    small: Any, steps: list[tuple[str, int]], size: int, faults: list[str]
) -> None:
    with TemporaryDirectory() as folder:
        shard = Shard(small, Path(folder), iter(faults), size)
        replica = shard.replica(shard.empty)
        for step in steps:
            shard.do(step)
        shard.seal()
        later = shard.snapshot()
        while not shard.seal():
            pass
        for delta in shard.deltas():
            replica.apply(delta)
            assert set(small.rows_of(replica.parameters.table).items()) <= shard.ever_sealed
        assert shard.holds_what_was_learned(replica)
        # A snapshot after a failed seal names numbers that may never arrive; its follower needs none.
        follower = shard.replica(later)
        for delta in shard.deltas()[follower.parameters.manifest.delta_position :]:
            follower.apply(delta)
        assert shard.holds_what_was_learned(follower)


@given(STEPS, SIZES, FAULTS, st.data())
@settings(max_examples=120, deadline=None)
def test_deltas_doubled_dropped_and_out_of_order_end_in_sealed_rows_or_ask_for_a_snapshot(
    small: Any, steps: list[tuple[str, int]], size: int, faults: list[str], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        shard = Shard(small, Path(folder), iter(faults), size)
        replica = shard.replica(shard.empty)
        for step in steps:
            shard.do(step)
        while not shard.seal():
            pass
        sent = [delta for delta in shard.deltas() if isinstance(delta, TableDelta)]
        copies = data.draw(st.lists(st.sampled_from([1, 1, 1, 0, 2]), min_size=len(sent), max_size=len(sent)))
        delivered = [delta for delta, count in zip(sent, copies, strict=True) for _ in range(count)]
        for place in data.draw(st.lists(st.integers(0, max(0, len(delivered) - 2)), max_size=3)):
            delivered[place : place + 2] = reversed(delivered[place : place + 2])
        asked = False
        for delta in delivered:
            asked |= replica.apply(delta) is NEEDED
            served = small.rows_of(replica.parameters.table)
            assert set(served.items()) <= shard.ever_sealed
            if replica.parameters.table_sequence in shard.sealed:
                assert served == shard.sealed[replica.parameters.table_sequence]
        newest = max((delta.sequence for delta in delivered), default=0)
        assert asked or replica.parameters.table_sequence == newest


@given(STEPS, SIZES, FAULTS)
@settings(max_examples=60, deadline=None)
def test_a_number_never_stands_for_two_contents(
    small: Any, steps: list[tuple[str, int]], size: int, faults: list[str]
) -> None:
    with TemporaryDirectory() as folder:
        shard = Shard(small, Path(folder), iter(faults), size)
        for step in [*steps, ("seal", 0), ("seal", 0)]:
            shard.do(step)
        handed_over = [decode_delta(value) for value in shard.sink.handed_over]
        for kind in (TableDelta, DenseDelta):
            numbers = [delta.sequence for delta in handed_over if isinstance(delta, kind)]
            assert numbers == list(range(1, len(numbers) + 1))


def test_only_the_last_delta_of_a_seal_says_that_all_has_arrived(small: Any, tmp_path: Path) -> None:
    shard = Shard(small, tmp_path, iter(()), 4)
    shard.learner.table.assign(small.keys(*range(10)), np.ones((10, 4), np.float32))
    assert shard.sync.seal(as_of_ms=123, sealed_at_ms=456)
    rows = [delta for delta in shard.deltas() if isinstance(delta, TableDelta)]
    assert [(delta.as_of_ms, delta.base_sequence, len(delta.updated_keys)) for delta in rows] == [
        (0, 0, 4),
        (0, 1, 4),
        (123, 2, 2),
    ]
    replica = shard.replica(shard.empty)
    ages = [replica.apply(delta) and replica.parameters.as_of_ms for delta in shard.deltas()]
    assert ages == [0, 0, 123, 123]


def test_a_whole_seal_that_is_lost_is_a_gap(small: Any, tmp_path: Path) -> None:
    shard = Shard(small, tmp_path, iter(()), 24)
    replica = shard.replica(shard.empty)
    for key in (1, 2, 3):
        shard.learner.table.assign(small.keys(key), np.ones((1, 4), np.float32))
        assert shard.seal()
    first, _, third = (delta for delta in shard.deltas() if isinstance(delta, TableDelta))
    assert [replica.apply(first), replica.apply(third)] == [ApplyOutcome.APPLIED, NEEDED]


def test_what_was_refused_is_counted_as_sent_only_once_it_has_arrived(small: Any, tmp_path: Path) -> None:
    shard = Shard(small, tmp_path, itertools.chain(["refused"], itertools.repeat("ok")), 100)
    shard.learner.table.assign(small.keys(1, 2, 3), np.ones((3, 4), np.float32))
    assert not shard.seal()
    assert shard.sync.rows_sent == 0
    assert shard.seal()
    assert shard.sync.rows_sent == 3


def test_a_delta_of_no_rows_is_refused_when_the_config_is_built() -> None:
    with pytest.raises(ConfigError, match="rows_per_delta must be > 0, got 0"):
        SyncConfig(model="small-1", incarnation=1, rows_per_delta=0)


def test_a_row_that_a_group_lasso_set_to_zero_travels_as_expired(small: Any) -> None:
    lasso = GroupAdagrad(learning_rate=1.0, group_lasso=1.0)
    start = Uniform(low=-0.01, high=0.01)
    parts = [SliceSpec(name=f"dim{dim}", dim=dim, optimizer=lasso, initializer=start) for dim in (1, 3)]
    table, log = NativeTable(TableSpec(name="zeroed", slices=tuple(parts)), threads=1), MemoryLog()
    learner = small.learner_over(table)
    sync = DeltaSync(learner, DeltaPublisher(log), SyncConfig(model="small-1", incarnation=1))
    weak, strong = small.keys(0, 1)
    grads = np.array([[0.01] * 4, [9.0] * 4], np.float32)
    table.learn(np.array([weak, strong]), grads, event_time_s=1)
    sync.seal(as_of_ms=1, sealed_at_ms=2)
    (rows,) = [d for d in map(decode_delta, values_of(log)) if isinstance(d, TableDelta)]
    assert table.contains(np.array([weak, strong])).all()
    assert (rows.expired_keys.tolist(), rows.updated_keys.tolist()) == ([weak], [strong])


def values_of(log: MemoryLog) -> list[bytes]:
    return [record.value for record in log.read(AT, 0, log.end(AT))]
