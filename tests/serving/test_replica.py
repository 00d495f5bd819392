"""A replica follows its log exactly, refuses what it cannot follow, and never shows half a row."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ShapeError, SnapshotError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.snapshots import snapshots, write_snapshot
from serving.errors import NotReady, SpecMismatch
from serving.replica import ApplyOutcome, Replica, newest_first
from streaming.deltas import DenseDelta, TableDelta, decode_delta, encode_delta


@pytest.fixture
def write(small: Any, tmp_path: Path) -> Any:
    """Writes a snapshot of a model that has learned ``seeds`` batches."""

    def writer(seeds: int = 2, **changes: Any) -> Path:
        learner = small.learner()
        for seed in range(seeds):
            small.learn(learner, seed)
        manifest = small.manifest(**({"examples": seeds, "table_sequence": 5, "dense_sequence": 5} | changes))
        metrics = ProgressiveMetrics(60_000).state()
        return write_snapshot(tmp_path, manifest, learner.table, learner.dense_state(), metrics)

    return writer


@pytest.fixture
def replica(small: Any, write: Any) -> Replica:
    """At incarnation 1, table sequence 5, dense sequence 5."""
    replica = Replica(small.scorer, small.schema.fingerprint)
    replica.load(write())
    return replica


def packed(rows_ND: Any) -> Any:
    return rows_ND.astype("<f4").view(np.uint8)


def rows_delta(small: Any, **changes: Any) -> TableDelta:
    """A delta as it comes off the wire: sequence 6 sets the first key's row to ones."""
    plain: dict[str, Any] = {
        "model": "small-1",
        "table": "rows",
        "spec_fingerprint": small.table().spec.fingerprint,
        "shard": 0,
        "incarnation": 1,
        "sequence": 6,
        "base_sequence": 5,
        "as_of_ms": 9,
        "sealed_at_ms": 10,
        "updated_keys": small.keys(0),
        "rows": packed(np.ones((1, 4), np.float32)),
        "expired_keys": small.keys(),
    }
    delta = decode_delta(encode_delta(TableDelta(**(plain | changes))))
    assert isinstance(delta, TableDelta)
    return delta


def dense_delta(small: Any, **changes: Any) -> DenseDelta:
    learner = small.learner()
    small.learn(learner, 50)
    plain: dict[str, Any] = {
        "model": "small-1",
        "incarnation": 1,
        "sequence": 6,
        "as_of_ms": 9,
        "sealed_at_ms": 10,
        "tensors": learner.dense_weights(),
    }
    return DenseDelta(**(plain | changes))


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, ApplyOutcome.APPLIED),
        ({"base_sequence": 2}, ApplyOutcome.APPLIED),
        ({"sequence": 9, "base_sequence": 0}, ApplyOutcome.APPLIED),
        ({"sequence": 5, "base_sequence": 4}, ApplyOutcome.DUPLICATE),
        ({"sequence": 7, "base_sequence": 6}, ApplyOutcome.SNAPSHOT_NEEDED),
        ({"incarnation": 0, "sequence": 99}, ApplyOutcome.STALE),
        ({"incarnation": 2, "sequence": 1, "base_sequence": 0}, ApplyOutcome.SNAPSHOT_NEEDED),
        ({"model": "other-1"}, ApplyOutcome.FOREIGN),
        ({"model": "other-1", "spec_fingerprint": 1}, ApplyOutcome.FOREIGN),
    ],
)
def test_rows_change_only_when_a_delta_follows_on(
    small: Any, replica: Replica, changes: dict[str, Any], outcome: ApplyOutcome
) -> None:
    before = small.rows_of(replica.parameters.table)
    delta = rows_delta(small, **changes)
    assert replica.apply(delta) is outcome
    changed = {int(small.keys(0)[0]): np.ones(4, np.float32).tobytes()}
    is_applied = outcome is ApplyOutcome.APPLIED
    assert small.rows_of(replica.parameters.table) == (before | changed if is_applied else before)
    assert replica.parameters.table_sequence == (delta.sequence if is_applied else 5)
    assert replica.parameters.as_of_ms == (9 if is_applied else 0)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"sequence": 8}, ApplyOutcome.APPLIED),
        ({"sequence": 5}, ApplyOutcome.DUPLICATE),
        ({"incarnation": 0}, ApplyOutcome.STALE),
        ({"incarnation": 2, "sequence": 1}, ApplyOutcome.SNAPSHOT_NEEDED),
        ({"model": "other-1"}, ApplyOutcome.FOREIGN),
    ],
)
def test_dense_weights_change_only_when_they_are_newer(
    small: Any, replica: Replica, changes: dict[str, Any], outcome: ApplyOutcome
) -> None:
    keys = small.examples(70).keys
    before = replica.score(keys).tobytes()
    assert replica.apply(dense_delta(small, **changes)) is outcome
    assert (replica.score(keys).tobytes() != before) is (outcome is ApplyOutcome.APPLIED)


def test_a_delta_of_expired_keys_alone_drops_their_rows(small: Any, replica: Replica) -> None:
    table = replica.parameters.table
    gone, kept = table.keys()[:2], table.keys()[2:]
    delta = rows_delta(
        small, updated_keys=small.keys(), rows=packed(np.empty((0, 4), np.float32)), expired_keys=gone
    )
    assert replica.apply(delta) is ApplyOutcome.APPLIED
    assert table.keys().tolist() == kept.tolist()


def test_changed_keys_do_not_pile_up_in_a_replica(small: Any, replica: Replica) -> None:
    replica.apply(rows_delta(small, expired_keys=replica.parameters.table.keys()[-1:]))
    assert replica.parameters.table.memory().bytes_changes == 0


def test_another_table_layout_is_refused_and_changes_nothing(small: Any, replica: Replica) -> None:
    before = small.rows_of(replica.parameters.table)
    with pytest.raises(SpecMismatch, match="delta 6 has layout 0000000000000001"):
        replica.apply(rows_delta(small, spec_fingerprint=1))
    assert small.rows_of(replica.parameters.table) == before


def test_weights_of_another_tower_are_refused_and_change_nothing(small: Any, replica: Replica) -> None:
    keys = small.examples(70).keys
    before = replica.score(keys).tobytes()
    with pytest.raises(SnapshotError, match="dense weights"):
        replica.apply(dense_delta(small, tensors={"other": np.ones(3, np.float32)}))
    assert replica.score(keys).tobytes() == before
    assert replica.parameters.dense_sequence == 5


def test_nothing_is_served_before_the_first_snapshot(small: Any) -> None:
    replica = Replica(small.scorer, small.schema.fingerprint)
    with pytest.raises(NotReady, match="no parameters are loaded yet"):
        replica.score(small.examples(0).keys)
    with pytest.raises(NotReady):
        replica.apply(rows_delta(small))


@pytest.mark.parametrize("damage", ["schema", "layout", "dense", "rows", "absent"])
def test_a_snapshot_that_cannot_be_loaded_leaves_the_old_parameters_in_service(
    small: Any, replica: Replica, write: Any, damage: str
) -> None:
    changes: dict[str, Any] = {"incarnation": 2, "table_sequence": 50}
    path = write(4, **changes, **({"schema_fingerprint": 1} if damage == "schema" else {}))
    if damage == "layout":
        other = small.table(name="other")
        path = write_snapshot(
            path.parent / "other",
            small.manifest(**changes),
            other,
            small.learner().dense_state(),
            ProgressiveMetrics(60_000).state(),
        )
    elif damage in ("dense", "rows"):
        file = path / {"dense": "dense.safetensors", "rows": "rows/rows-00000-of-00001.arrow"}[damage]
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "absent":
        path = path.with_name("snapshot-0009-0")
    before = replica.parameters
    rows = small.rows_of(before.table)
    with pytest.raises(SpecMismatch if damage == "schema" else SnapshotError):
        replica.load(path)
    assert replica.parameters is before
    assert small.rows_of(before.table) == rows


def test_a_snapshot_is_swapped_in_whole(small: Any, replica: Replica, write: Any) -> None:
    before = replica.parameters
    rows = small.rows_of(before.table)
    replica.load(write(4, incarnation=2, table_sequence=50, dense_sequence=60, as_of_ms=7))
    now = replica.parameters
    assert (now.table_sequence, now.dense_sequence, now.as_of_ms) == (50, 60, 7)
    assert small.rows_of(before.table) == rows, "a request under way keeps what it began with"


def test_readers_see_whole_rows_while_deltas_are_applied(small: Any, replica: Replica) -> None:
    keys, stop = small.keys(*range(24)), threading.Event()
    torn: list[Any] = []
    replica.apply(rows_delta(small, updated_keys=keys, rows=packed(np.zeros((24, 4), np.float32))))

    def read() -> None:
        while not stop.is_set():
            rows_ND = replica.parameters.table.lookup(keys)
            torn.extend(row_D for row_D in rows_ND if len(set(row_D.tolist())) > 1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for sequence in range(7, 400):
        rows_ND = np.full((24, 4), sequence, np.float32)
        delta = rows_delta(
            small, sequence=sequence, base_sequence=sequence - 1, updated_keys=keys, rows=packed(rows_ND)
        )
        assert replica.apply(delta) is ApplyOutcome.APPLIED
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []


@given(st.permutations([(1, 9, 30), (2, 0, 10), (2, 4, 20), (2, 4, 25)]))
@settings(deadline=None, max_examples=10)
def test_the_newest_is_by_start_then_delta_then_examples(
    small: Any, order: list[tuple[int, int, int]]
) -> None:
    manifests = [
        small.manifest(incarnation=start, table_sequence=sequence, examples=examples)
        for start, sequence, examples in order
    ]
    assert max(manifests, key=lambda manifest: manifest.position).examples == 25


def test_a_snapshot_without_a_readable_manifest_is_passed_over(write: Any, tmp_path: Path) -> None:
    older, newer = write(1), write(3)
    other = write(4, model="other-1")
    (newer / "manifest.json").write_bytes(b"{}")
    oldest = write(0)
    assert newest_first([*snapshots(tmp_path), tmp_path / "gone"], "small-1") == [older, oldest]
    assert newest_first(snapshots(tmp_path), "other-1") == [other]
    assert newest_first([], "small-1") == []


def test_a_lost_dense_delta_is_missed_by_the_rows_that_come_after_it(small: Any, replica: Replica) -> None:
    late = rows_delta(small, dense_sequence=6)
    assert replica.apply(late) is ApplyOutcome.SNAPSHOT_NEEDED
    assert "got delta 6 beside dense parameters 6, wanted one beside 5" in replica.refusal
    assert replica.apply(dense_delta(small)) is ApplyOutcome.APPLIED
    assert replica.apply(late) is ApplyOutcome.APPLIED


def test_the_skew_says_how_far_dense_weights_are_behind_the_rows(small: Any, replica: Replica) -> None:
    replica.apply(dense_delta(small, as_of_ms=10))
    replica.apply(rows_delta(small, as_of_ms=35))
    assert replica.parameters.skew_ms == -25


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sequence": 9, "base_sequence": 8}, "got delta 9 after 8, wanted one after 5"),
        ({"incarnation": 2}, "got incarnation 2, wanted 1"),
        ({"codec": "fp16", "rows": np.zeros((1, 8), np.uint8)}, "got delta 6 in fp16, wanted fp32"),
    ],
)
def test_a_refusal_names_the_table_what_came_and_what_should_have_come(
    small: Any, replica: Replica, changes: dict[str, Any], words: str
) -> None:
    assert replica.apply(rows_delta(small, **changes)) is ApplyOutcome.SNAPSHOT_NEEDED
    assert replica.refusal == f"table 'rows' shard 0: {words}; request a snapshot"


@pytest.mark.parametrize("changes", [{"table": "other"}, {"shard": 3}])
def test_rows_of_a_table_or_shard_that_is_not_here_are_refused(
    small: Any, replica: Replica, changes: dict[str, Any]
) -> None:
    with pytest.raises(SpecMismatch, match="got delta 6 of it, wanted table 'rows' shard 0"):
        replica.apply(rows_delta(small, **changes))


def test_rows_of_another_width_are_refused_and_change_nothing(small: Any, replica: Replica) -> None:
    before = small.rows_of(replica.parameters.table)
    with pytest.raises(ShapeError, match=r"want fp32 rows uint8 \(N, 16\)"):
        replica.apply(rows_delta(small, rows=np.zeros((1, 12), np.uint8)))
    assert small.rows_of(replica.parameters.table) == before
    assert replica.parameters.table_sequence == 5


def test_a_shadow_takes_deltas_but_no_requests_until_it_is_swapped_in(
    small: Any, replica: Replica, write: Any
) -> None:
    served, keys = replica.parameters, small.examples(70).keys
    before = replica.score(keys).tobytes()
    served.as_of_ms = 100
    replica.prepare(write(4, incarnation=2, table_sequence=1, dense_sequence=1, as_of_ms=40))
    assert not replica.is_caught_up()
    follows_on = {"incarnation": 2, "sequence": 2, "base_sequence": 1}
    assert replica.apply(rows_delta(small, **follows_on, as_of_ms=100)) is ApplyOutcome.APPLIED
    assert replica.parameters is served
    assert replica.score(keys).tobytes() == before
    assert replica.is_caught_up()
    shadow = replica.following
    replica.swap()
    assert replica.parameters is shadow is not served
    assert replica.shadow is None
