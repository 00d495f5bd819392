"""The follower boots, follows, swaps and goes on, whatever its log and its disk do meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.errors import NotReady
from serving.replica import ApplyOutcome
from streaming.errors import OffsetLost, SourceUnavailable, StreamingError


def test_it_boots_with_the_first_snapshot_and_then_follows(scene: Any) -> None:
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


def outcomes(scene: Any, outcome: ApplyOutcome) -> int:
    return scene.follower.outcomes[outcome]


@pytest.mark.parametrize("fate", ["lost", "damaged"])
def test_after_a_gap_old_parameters_serve_until_a_newer_snapshot_comes(scene: Any, fate: str) -> None:
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
        assert (before.table_sequence, len(before.table)) == (1, 0)
        shard.save()
        scene.until_serves(shard)
        shard.learn_and_seal()
        scene.until_serves(shard)


def test_a_log_that_is_away_does_not_make_it_forget_that_it_needs_a_snapshot(scene: Any) -> None:
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


def test_a_log_that_is_away_for_a_while_costs_nothing(scene: Any) -> None:
    shard = scene.shard()
    shard.save()
    scene.source.poll_errors += [SourceUnavailable("told to")] * 2
    with scene.following():
        shard.learn_and_seal()
        scene.until_serves(shard)
    assert +scene.follower.outcomes == {ApplyOutcome.APPLIED: scene.follower.outcomes.total()}


def test_where_the_log_has_moved_on_a_newer_snapshot_is_taken(scene: Any) -> None:
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


def test_a_restarted_trainer_is_followed_from_its_own_snapshot(scene: Any) -> None:
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


def test_another_model_is_swapped_in_and_back_when_the_choice_changes(scene: Any) -> None:
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


def test_a_log_that_cannot_be_sought_at_once_is_sought_again(scene: Any) -> None:
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
def test_a_snapshot_source_that_raises_is_asked_again(scene: Any, error: Exception) -> None:
    shard = scene.shard()
    shard.save()
    scene.shelf.errors.append(error)
    with scene.following():
        scene.until_serves(shard)
        shard.learn_and_seal()
        scene.shelf.errors.append(error)
        scene.until_serves(shard)


def test_while_a_store_keeps_it_waiting_deltas_are_applied(scene: Any) -> None:
    shard = scene.shard()
    shard.save()
    with scene.following():
        scene.until_serves(shard)
        scene.shelf.answers.clear()
        scene.shelf.is_asked.clear()
        assert scene.shelf.is_asked.wait(10)
        shard.learn_and_seal()
        scene.until_serves(shard)
        scene.shelf.answers.set()
        # It looks again, and serves what it finds.
        other = scene.shard(model="other-1")
        other.save()
        scene.shelf.chosen = "other-1"
        scene.until_serves(other)


def test_while_a_store_fails_for_good_deltas_are_applied_and_no_snapshot_is_asked_for(
    scene: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shard = scene.shard()
    shard.save()
    with scene.following():
        scene.until_serves(shard)
        scene.shelf.errors += [RuntimeError("503")] * 1000
        scene.heartbeat.until(lambda: len(scene.shelf.errors) < 997)
        shard.learn_and_seal()
        scene.until_serves(shard)
    assert outcomes(scene, ApplyOutcome.SNAPSHOT_NEEDED) == 0
    assert [record.message for record in caplog.records].count("snapshots_unreadable") == 1


def test_a_source_that_breaks_a_promise_does_not_end_the_following(scene: Any) -> None:
    shard = scene.shard()
    shard.save()
    scene.source.poll_errors.append(ValueError("no promise covers this"))
    with scene.following():
        shard.learn_and_seal()
        scene.until_serves(shard)


def test_a_listener_that_raises_does_not_end_the_following(scene: Any) -> None:
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


def test_a_damaged_snapshot_is_not_served_and_the_next_one_is(scene: Any) -> None:
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


def test_beside_a_damaged_snapshot_it_boots_from_the_one_before(scene: Any) -> None:
    shard = scene.shard()
    first = shard.save()
    shard.learn_and_seal()
    write_damaged(shard, first)
    with scene.following():
        scene.until_serves(shard)


def write_damaged(shard: Any, beside: Path) -> Path:
    """A snapshot whose manifest is whole and whose weights are not."""
    path = shard.save()
    hidden = path.rename(beside.with_name(f".{path.name}"))
    file = hidden / "dense.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return hidden.rename(path)
