"""After a gap or a restore the old parameters serve, and the new ones take over only when they are as new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recsys.errors import ConfigError
from serving.follower import FollowerConfig, FollowerStatus
from serving.replica import ApplyOutcome
from streaming.errors import OffsetLost, SourceUnavailable

MakeScene = Callable[..., Any]


def test_after_a_restore_serving_never_goes_back_in_time(scene: Any) -> None:
    first = scene.shard(first_seed=0)
    first.save()
    ages: list[int] = []
    scene.on_applied = lambda: ages.append(scene.replica.parameters.as_of_ms)
    with scene.following():
        for _ in range(9):
            first.learn_and_seal()
        scene.until_serves(first)
        before = scene.replica.parameters
        restored = scene.shard(incarnation=2, first_seed=4)
        restored.save()
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.CATCHING_UP)
        for _ in range(4):
            restored.learn_and_seal()
            scene.heartbeat.turns(3)
            assert scene.replica.parameters is before
            assert scene.serves(first)
        restored.learn_and_seal()
        scene.until_serves(restored)
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.FOLLOWING)
    assert ages == sorted(ages)
    assert ages[-1] == 9


def test_a_restored_trainer_that_does_not_catch_up_takes_over_in_the_end(make_scene: MakeScene) -> None:
    scene = make_scene(max_catch_up_s=0.3)
    first = scene.shard(first_seed=0)
    first.save()
    with scene.following():
        for _ in range(9):
            first.learn_and_seal()
        scene.until_serves(first)
        restored = scene.shard(incarnation=2, first_seed=1)
        restored.learn_and_seal()
        restored.save()
        scene.until_serves(restored)
        assert scene.replica.parameters.as_of_ms == 2


def test_a_gap_in_the_shadow_asks_for_a_newer_snapshot_and_the_old_rows_go_on(scene: Any) -> None:
    first = scene.shard(first_seed=0)
    first.save()
    with scene.following():
        for _ in range(9):
            first.learn_and_seal()
        scene.until_serves(first)
        restored = scene.shard(incarnation=2, first_seed=1)
        restored.save()
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.CATCHING_UP)
        scene.wire.fate = "lost"
        restored.learn_and_seal()
        scene.wire.fate = "arrives"
        restored.learn_and_seal()
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.WAITING_FOR_SNAPSHOT)
        scene.heartbeat.turns(5)
        assert scene.serves(first)
        restored.save()
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.CATCHING_UP)
        restored.seed = 9
        restored.learn_and_seal()
        scene.until_serves(restored)


def test_a_sender_that_sends_all_again_heals_a_gap_without_a_snapshot(scene: Any) -> None:
    shard = scene.shard()
    shard.save()
    with scene.following():
        scene.until_serves(shard)
        scene.wire.fate = "halved"
        shard.learn_and_fail_to_seal()
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.WAITING_FOR_SNAPSHOT)
        scene.wire.fate = "arrives"
        shard.learn_and_seal()
        scene.until_serves(shard)
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.FOLLOWING)


@pytest.mark.parametrize("codec", ["fp16", "int8_row"])
def test_a_codec_that_the_log_names_is_taken_over_with_the_next_snapshot(scene: Any, codec: str) -> None:
    shard = scene.shard(codec=codec)
    shard.save()
    with scene.following():
        scene.heartbeat.until(scene.replica.ready.is_set)
        shard.learn_and_seal()
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.WAITING_FOR_SNAPSHOT)
        shard.save()
        scene.heartbeat.until(lambda: scene.replica.parameters.codec.name == codec)
        shard.learn_and_seal()
        keys = shard.learner.table.keys()
        sequence = shard.table_sequence
        scene.heartbeat.until(lambda: scene.replica.parameters.table_sequence == sequence)
    served_ND = scene.replica.parameters.table.lookup(keys)
    trained_ND = shard.learner.table.lookup(keys)
    assert (served_ND != trained_ND).any()
    if codec == "fp16":
        assert served_ND.tobytes() == trained_ND.astype(np.float16).astype(np.float32).tobytes()
    np.testing.assert_allclose(served_ND, trained_ND, atol=0.01)


def test_replicas_of_one_log_follow_it_each_at_its_own_place(scene: Any) -> None:
    shard = scene.shard()
    shard.save()
    other, source, follower = scene.another()
    with scene.following():
        shard.learn_and_seal()
        scene.until_serves(shard)
        # The second one boots later, loses a poll, and is no concern of the first.
        source.poll_errors.append(OffsetLost("told to"))
        follower.start()
        shard.learn_and_seal()
        scene.until_serves(shard)
        assert scene.follower.outcomes[ApplyOutcome.SNAPSHOT_NEEDED] == 0
        shard.save()
        rows = scene.small.rows_of(shard.learner.table)
        scene.heartbeat.until(other.ready.is_set)
        scene.heartbeat.until(lambda: scene.small.rows_of(other.parameters.table) == rows)
        follower.stop()


def test_the_status_says_when_the_log_is_out_of_reach_and_when_it_is_back(scene: Any) -> None:
    statuses = [scene.follower.status]
    shard = scene.shard()
    shard.save()
    with scene.following():
        scene.until_serves(shard)
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.FOLLOWING)
        scene.source.poll_errors += [SourceUnavailable("told to")] * 2
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.LOG_UNREACHABLE)
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.FOLLOWING)
    assert statuses == [FollowerStatus.WAITING_FOR_SNAPSHOT]
    assert scene.follower.outcomes[ApplyOutcome.SNAPSHOT_NEEDED] == 0


def test_a_source_that_falls_silent_is_asked_whether_its_log_is_still_there(scene: Any) -> None:
    shard = scene.shard()
    shard.save()
    with scene.following():
        scene.until_serves(shard)
        scene.source.end_errors.append(SourceUnavailable("told to"))
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.LOG_UNREACHABLE)
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.FOLLOWING)
        scene.source.end_errors.append(OffsetLost("told to"))
        scene.heartbeat.until(lambda: scene.follower.status is FollowerStatus.WAITING_FOR_SNAPSHOT)
        shard.learn_and_seal()
        scene.until_serves(shard)


@pytest.mark.parametrize("name", ["check_period_s", "quiet_s", "max_catch_up_s"])
def test_impatience_without_end_is_refused_when_the_config_is_built(name: str) -> None:
    with pytest.raises(ConfigError, match="check_period_s and quiet_s must be > 0"):
        FollowerConfig(**{name: -1})
