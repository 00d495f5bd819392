"""A trainer that is stopped or killed and restored ends with the bits of one that never was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.snapshots import read_manifest, snapshots
from serving.replica import ApplyOutcome, Replica
from streaming.deltas import DeltaSubscriber
from streaming.errors import OffsetLost
from streaming.example_wire import ExampleMessage, encode_examples
from streaming.memory_log import Entry, MemoryLog
from streaming.topics import DELTAS, EXAMPLES
from training.errors import LayoutMismatch
from training.online_loop import LoopConfig
from training.snapshot_rhythm import SnapshotPeriods

Start = Callable[..., Any]


def log_of(*values: bytes) -> MemoryLog:
    return MemoryLog(Entry(EXAMPLES, 0, b"", value) for value in values)


def message(small: Any, number: int, n_rows: int = 5, **changes: Any) -> bytes:
    batch = dataclasses.replace(small.examples(number, n_rows), **changes)
    return encode_examples(ExampleMessage(batch=batch, sequence=number))


def often(period_ms: int, full_period_ms: int = 300_000, rows_per_turn: int = 8192) -> SnapshotPeriods:
    """Periods in polls, as the test's clock goes."""
    return SnapshotPeriods(period_ms=period_ms, full_period_ms=full_period_ms, rows_per_turn=rows_per_turn)


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["batch", "batch", "batch", "again", "noise"]), st.integers(0, 9)),
    min_size=1,
    max_size=9,
)
RUNS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=4)


def example_log(small: Any, messages: list[tuple[str, int]]) -> tuple[MemoryLog, int]:
    """(log of batches, batches sent twice and noise; examples in it, each batch counted once)."""
    values: list[bytes] = []
    sent: list[bytes] = []
    n_examples = 0
    for what, size in messages:
        if what == "batch":
            sent.append(message(small, len(sent), size))
            n_examples += size
        values.append(sent[-1] if what != "noise" and sent else b"noise")
    return log_of(*values), n_examples


@given(MESSAGES, RUNS, st.integers(1, 12), st.integers(1, 8), st.integers(1, 30), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_any_stops_and_kills_end_in_the_bits_of_an_undisturbed_run(
    small: Any,
    trainer: Start,
    messages: list[tuple[str, int]],
    runs: list[tuple[int, bool]],
    sync_ms: int,
    snapshot_ms: int,
    full_ms: int,
    rows_per_turn: int,
) -> None:
    log, n_examples = example_log(small, messages)
    with TemporaryDirectory() as folder:
        undisturbed = trainer(log, Path(folder) / "a")
        undisturbed.run()
        periods = {"sync_ms": sync_ms, "snapshots": often(snapshot_ms, full_ms, rows_per_turn)}
        deltas, b = MemoryLog(), Path(folder) / "b"
        for limit, is_killed in runs:
            trainer(log, b, deltas=deltas, **periods).run(limit=limit, is_killed=is_killed)
        last = trainer(log, b, deltas=deltas, **periods)
        last.run()
        assert last.loop.status.examples == undisturbed.loop.status.examples == n_examples
        assert last.loop.status.as_of_ms == undisturbed.loop.status.as_of_ms
        wanted = small.bits_of(undisturbed.learner, undisturbed.loop.metrics)
        assert small.bits_of(last.learner, last.loop.metrics) == wanted
        manifest = read_manifest(snapshots(b)[-1])
        assert manifest.incarnation == len(runs) + 1
        assert manifest.source_offsets == {f"{EXAMPLES}/0": len(messages)}
        replica = Replica(small.scorer, small.schema.fingerprint)
        follow(replica, deltas, snapshots(b))
        assert small.rows_of(replica.parameters.table) == small.rows_of(last.learner.table)


def follow(replica: Replica, deltas: MemoryLog, found: list[Path]) -> None:
    """Load the oldest snapshot that is kept, read the log to its end, take the newest when asked to."""
    subscriber = DeltaSubscriber(deltas.source([(DELTAS, 0)]))
    subscriber.seek(replica.load(found[0]).delta_position)
    while batch := subscriber.poll(timeout_s=0):
        if ApplyOutcome.SNAPSHOT_NEEDED in map(replica.apply, batch):
            subscriber.seek(replica.load(found[-1]).delta_position)


def test_a_batch_sent_twice_is_learned_once(small: Any, trainer: Start, tmp_path: Path) -> None:
    first, second = message(small, 0), message(small, 1)
    once, twice = (
        trainer(log_of(first, second), tmp_path / "a"),
        trainer(log_of(first, first, second, second, first), tmp_path / "b"),
    )
    once.run()
    twice.run()
    assert small.bits_of(twice.learner, twice.loop.metrics) == small.bits_of(once.learner, once.loop.metrics)


def broken_messages(small: Any) -> dict[str, bytes]:
    """Messages that cannot be learned from, by what is wrong with them; each would have number 1."""
    times_B = small.examples(1).event_time_ms_B
    return {
        "noise": b"noise",
        "nothing": b"",
        "a label that is no number": message(small, 1, label_BL=np.full((5, 1), np.inf, np.float32)),
        "a time before 1970": message(small, 1, event_time_ms_B=np.where(np.arange(5) > 2, -5000, times_B)),
        "a time after 2106": message(small, 1, event_time_ms_B=times_B + (1 << 42)),
    }


@pytest.mark.parametrize(
    "what",
    ["noise", "nothing", "a label that is no number", "a time before 1970", "a time after 2106"],
)
def test_a_batch_that_cannot_be_learned_from_is_reported_and_passed_over(
    small: Any, trainer: Start, tmp_path: Path, what: str
) -> None:
    good = message(small, 0), message(small, 2)
    plain = trainer(log_of(*good), tmp_path / "a")
    plain.run()
    broken = broken_messages(small)[what]
    disturbed = trainer(log_of(good[0], broken, broken, good[1]), tmp_path / "b")
    disturbed.run()
    assert 1 in [offset for offset, reason in disturbed.witness.rejections if reason]
    assert disturbed.loop.status.offsets == {f"{EXAMPLES}/0": 4}
    wanted = small.bits_of(plain.learner, plain.loop.metrics)
    assert small.bits_of(disturbed.learner, disturbed.loop.metrics) == wanted


def test_a_batch_that_fails_half_way_is_not_learned_from_again_when_it_comes_twice(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    labels_B = np.array([0, 1, 0, 1, np.inf], np.float32)
    broken = message(small, 0, label_BL=labels_B.reshape(-1, 1))
    once, twice = trainer(log_of(broken), tmp_path / "a"), trainer(log_of(broken, broken), tmp_path / "b")
    once.run()
    twice.run()
    assert len(once.learner.table) > 0, "the first four were learned before the fifth was refused"
    assert small.bits_of(twice.learner, twice.loop.metrics) == small.bits_of(once.learner, once.loop.metrics)


def test_a_batch_of_no_examples_moves_nothing_but_the_offset(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    one = trainer(log_of(message(small, 0, n_rows=0)), tmp_path)
    one.run()
    assert (one.loop.status.examples, one.loop.status.offsets) == (0, {f"{EXAMPLES}/0": 1})
    assert one.witness.rejections == []


def test_examples_of_other_features_end_the_run_with_the_snapshot_before_them(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    log = log_of(message(small, 0), message(small, 1, schema_fingerprint=1))
    one = trainer(log, tmp_path, snapshots=often(1))
    with pytest.raises(LayoutMismatch, match="examples have feature schema 0000000000000001"):
        one.run()
    assert one.loop.status.offsets == {f"{EXAMPLES}/0": 1}


def test_examples_of_other_labels_end_the_run_rather_than_teach_the_wrong_ones(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    log = log_of(message(small, 0, label_names=("click",)))
    one = trainer(log, tmp_path, label_names=("long_view",))
    with pytest.raises(LayoutMismatch, match="examples have labels click, recipe 'small' wants long_view"):
        one.run()
    assert one.loop.status.examples == 0


def test_a_label_that_nobody_has_named_is_taken_for_the_one_that_is_wanted(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    one = trainer(log_of(message(small, 0)), tmp_path, label_names=("long_view",))
    one.run()
    assert one.loop.status.examples == 5


def test_a_snapshot_of_other_features_is_refused(small: Any, trainer: Start, tmp_path: Path) -> None:
    log = log_of(message(small, 0))
    trainer(log, tmp_path).run()
    with pytest.raises(LayoutMismatch, match="snapshot of 'small-1' has feature schema"):
        trainer(log, tmp_path, schema_fingerprint=1)


def test_a_snapshot_that_is_ahead_of_its_log_is_refused(small: Any, trainer: Start, tmp_path: Path) -> None:
    trainer(log_of(message(small, 0)), tmp_path).run()
    with pytest.raises(OffsetLost):
        trainer(MemoryLog(), tmp_path)


def test_the_first_act_of_a_start_is_a_snapshot_that_replicas_find(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    deltas = MemoryLog()
    one = trainer(log_of(message(small, 0)), tmp_path, deltas=deltas)
    one.run(limit=0, is_killed=True)
    (first,) = one.witness.manifests
    assert (first.incarnation, first.examples, first.delta_position) == (1, 0, deltas.end((DELTAS, 0)))


def test_a_snapshot_is_taken_once_at_the_mark(small: Any, trainer: Start, tmp_path: Path) -> None:
    log = log_of(*(message(small, number) for number in range(4)))
    one = trainer(log, tmp_path, snapshot_at=8)
    one.run()
    assert [manifest.examples for manifest in one.witness.manifests] == [0, 10, 20]


def test_showings_are_those_of_the_whole_stream_and_a_restart_counts_on(
    small: Any, trainer: Start, tmp_path: Path
) -> None:
    rates = np.full((5, 1), 0.1, np.float32)
    sampled = [message(small, number, sample_rate_BL=rates) for number in range(4)]
    whole = trainer(log_of(*sampled), tmp_path / "whole")
    whole.run()
    log = log_of(*sampled)
    trainer(log, tmp_path / "parts", snapshots=often(1)).run(limit=2)
    resumed = trainer(log, tmp_path / "parts")
    assert resumed.loop.status.showings > 0
    resumed.run()
    assert resumed.loop.status.showings == whole.loop.status.showings > whole.loop.status.examples


@pytest.mark.parametrize("name", ["micro_batch", "lag_period_ms", "sweep_every_s"])
def test_a_period_or_size_of_nothing_is_refused_when_the_config_is_built(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be > 0, got 0"):
        LoopConfig(recipe="small", schema_fingerprint=1, **{name: 0})
