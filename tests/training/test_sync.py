"""What is learned is what is served, whatever the log or the network does to the deltas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import read_dense, read_manifest, read_table, write_snapshot
from serving.replica import ApplyOutcome, Replica
from streaming.deltas import DeltaPublisher, DenseDelta, TableDelta, decode_delta
from streaming.errors import SinkUnavailable
from streaming.memory_log import MemoryLog
from streaming.topics import DELTAS
from training.sync import ENVELOPE_BYTES, DeltaSync, SyncConfig

NEEDED = ApplyOutcome.SNAPSHOT_NEEDED
AT = (DELTAS, 0)
KEY_AND_ROW_BYTES = {"fp32": 8 + 16, "fp16": 8 + 8, "int8_row": 8 + 4 + 7}


def coded(codec: Any, rows_ND: Any) -> Any:
    """What a row of a wide slice of one weight and a vector of three reads as, by numpy's own rounding."""
    if codec == "fp32":
        return rows_ND
    if codec == "fp16":
        return rows_ND.astype(np.float16).astype(np.float32)
    # One weight and its scale would be longer than the weight.
    wide_N1, part_ND = rows_ND[:, :1], rows_ND[:, 1:]
    scale_N1 = np.abs(part_ND).max(axis=1, keepdims=True) / np.float32(127)
    level_ND = np.rint(np.divide(part_ND, scale_N1, where=scale_N1 > 0, out=np.zeros_like(part_ND)))
    # A level of 0 has no sign on the wire.
    vector_ND = level_ND.astype(np.int8).astype(np.float32) * scale_N1
    return np.concatenate([wide_N1, vector_ND], axis=1)


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

    def __init__(
        self, small: Any, folder: Path, faults: Iterator[str], rows: int, codec: Any = "fp32", **config: Any
    ) -> None:
        self.small, self.folder, self.log, self.codec = small, folder, MemoryLog(), codec
        self.sink = UnreliableSink(self.log, faults)
        size = ENVELOPE_BYTES + 3 * len("small-1rows") + rows * KEY_AND_ROW_BYTES[codec]
        self.config = SyncConfig(model="small-1", incarnation=0, codec=codec, delta_bytes=size, **config)
        self.sealed: dict[tuple[int, int], dict[int, bytes]] = {}
        self.ever_sealed: set[tuple[int, bytes]] = set()
        self.start(None)
        self.empty = self.last = self.snapshot()

    def start(self, snapshot: Path | None) -> None:
        """Begin a new incarnation from a snapshot, as a trainer does that was killed."""
        self.learner = self.small.learner()
        if snapshot is not None:
            read_table(snapshot, self.learner.table)
            self.learner.load_dense_state(read_dense(snapshot, read_manifest(snapshot)))
        self.config = replace(self.config, incarnation=self.config.incarnation + 1)
        self.sync = DeltaSync(self.learner, DeltaPublisher(self.sink), self.config, stopwatch=lambda: 0.0)
        self.sealed[self.config.incarnation, 0] = self.rows()
        self.ever_sealed |= set(self.rows().items())

    def rows(self) -> dict[int, bytes]:
        """What should be served of the rows as they are now."""
        keys = self.learner.table.keys()
        rows_ND = coded(self.codec, self.learner.table.lookup(keys))
        return dict(zip(keys.tolist(), map(np.ndarray.tobytes, rows_ND), strict=True))

    def seal(self) -> bool:
        rows = self.rows()
        self.ever_sealed |= set(rows.items())
        is_good = self.sync.seal(as_of_ms=1, sealed_at_ms=2)
        if is_good:
            self.sealed[self.config.incarnation, self.sync.table_sequence] = rows
        return is_good

    def snapshot(self) -> Path:
        manifest = self.small.manifest(
            incarnation=self.config.incarnation,
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
        elif what == "seal":
            self.seal()
        elif what == "save":
            self.seal()
            self.last = self.snapshot()
        else:
            self.start(self.last)

    def deltas(self) -> list[TableDelta | DenseDelta]:
        return [decode_delta(record.value) for record in self.log.read(AT, 0, self.log.end(AT))]

    def replica(self, snapshot: Path) -> Replica:
        replica = Replica(self.small.scorer, self.small.schema.fingerprint, codec=self.codec)
        replica.load(snapshot)
        return replica

    def holds_what_was_learned(self, replica: Replica) -> bool:
        served, dense = replica.parameters, self.learner.dense_weights()
        keys = self.small.examples(99).keys
        return (
            self.small.rows_of(served.table) == self.rows()
            and served.table_sequence == self.sync.table_sequence
            and served.scorer.score(keys).tobytes() == self.fresh_scores(dense, keys)
        )

    def fresh_scores(self, dense: Any, keys: Any) -> bytes:
        table, scorer = self.small.scorer()
        keys_N = self.learner.table.keys()
        table.assign(keys_N, coded(self.codec, self.learner.table.lookup(keys_N)))
        scorer.load_dense(dense)
        scores: bytes = scorer.score(keys).tobytes()
        return scores


def mistreated(sent: list[Any], data: st.DataObject) -> list[Any]:
    """The deltas as a bad wire hands them over: some twice, some never, some in another order."""
    copies = data.draw(st.lists(st.sampled_from([1, 1, 1, 0, 2]), min_size=len(sent), max_size=len(sent)))
    delivered = [delta for delta, count in zip(sent, copies, strict=True) for _ in range(count)]
    for place in data.draw(st.lists(st.integers(0, max(0, len(delivered) - 2)), max_size=3)):
        delivered[place : place + 2] = reversed(delivered[place : place + 2])
    return delivered


STEPS = st.lists(
    st.tuples(st.sampled_from(["learn", "learn", "erase", "seal", "seal"]), st.integers(0, 60)), max_size=14
)
LIVES = st.lists(
    st.tuples(st.sampled_from(["learn", "learn", "erase", "seal", "save", "restart"]), st.integers(0, 60)),
    max_size=14,
)
FAULTS = st.lists(st.sampled_from(["ok", "ok", "unsure", "lost", "late", "refused"]), max_size=25)
SIZES = st.sampled_from([1, 2, 5, 24])
CODECS = st.sampled_from(["fp32", "fp16", "int8_row"])
DENSE_PERIODS = st.sampled_from([0, 1, 1000])


@given(STEPS, SIZES, CODECS)
@settings(max_examples=60, deadline=None)
def test_a_replica_that_read_the_log_holds_exactly_the_training_rows_as_their_codec_says_them(
    small: Any, steps: list[tuple[str, int]], size: int, codec: str
) -> None:
    with TemporaryDirectory() as folder:
        shard = Shard(small, Path(folder), iter(()), size, codec)
        replica = shard.replica(shard.empty)
        for step in [*steps, ("seal", 0)]:
            shard.do(step)
        outcomes = {replica.apply(delta) for delta in shard.deltas()}
        assert outcomes == {ApplyOutcome.APPLIED}
        assert shard.holds_what_was_learned(replica)
        assert small.rows_of(shard.replica(shard.snapshot()).parameters.table) == shard.rows()


@given(STEPS, SIZES, FAULTS, CODECS)
@settings(max_examples=120, deadline=None)
def test_a_log_that_fails_between_or_within_seals_loses_nothing(
    small: Any, steps: list[tuple[str, int]], size: int, faults: list[str], codec: str
) -> None:
    with TemporaryDirectory() as folder:
        shard = Shard(small, Path(folder), iter(faults), size, codec)
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


@given(STEPS, SIZES, FAULTS, DENSE_PERIODS, st.data())
@settings(max_examples=120, deadline=None)
def test_deltas_doubled_dropped_and_out_of_order_end_in_sealed_rows_or_ask_for_a_snapshot(
    small: Any, steps: list[tuple[str, int]], size: int, faults: list[str], dense_ms: int, data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        shard = Shard(small, Path(folder), iter(faults), size, dense_period_ms=dense_ms)
        replica = shard.replica(shard.empty)
        for step in steps:
            shard.do(step)
        while not shard.seal():
            pass
        delivered, asked = mistreated(shard.deltas(), data), False
        for delta in delivered:
            asked |= replica.apply(delta) is NEEDED
            served = small.rows_of(replica.parameters.table)
            assert set(served.items()) <= shard.ever_sealed
            assert served == shard.sealed.get(replica.parameters.position, served)
        newest = max((delta.sequence for delta in delivered if isinstance(delta, TableDelta)), default=0)
        assert asked or replica.parameters.table_sequence == newest


@given(LIVES, SIZES, FAULTS, CODECS, st.data())
@settings(max_examples=100, deadline=None)
def test_a_sender_that_is_killed_and_restored_never_makes_a_replica_serve_a_wrong_row(
    small: Any, steps: list[tuple[str, int]], size: int, faults: list[str], codec: str, data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        shard = Shard(small, Path(folder), iter(faults), size, codec)
        replica = shard.replica(shard.empty)
        for step in steps:
            shard.do(step)
        while not shard.seal():
            pass
        shard.last = shard.snapshot()
        for delta in mistreated(shard.deltas(), data):
            if replica.apply(delta) is NEEDED:
                replica.load(shard.last)
            served = small.rows_of(replica.parameters.table)
            assert set(served.items()) <= shard.ever_sealed
            assert served == shard.sealed.get(replica.parameters.position, served)
        if replica.parameters.manifest.incarnation == shard.config.incarnation:
            for delta in shard.deltas():
                replica.apply(delta)
            assert shard.holds_what_was_learned(replica)


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
