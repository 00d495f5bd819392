"""What one seal puts on the wire, in how many pieces, and what waits when it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError, GradientError
from recsys.table import GroupAdagrad, SliceSpec, TableSpec, Uniform
from recsys.table.native import NativeTable
from streaming.deltas import DeltaPublisher, DenseDelta, TableDelta, decode_delta
from streaming.errors import SinkUnavailable
from streaming.memory_log import MemoryLog
from streaming.topics import DELTAS
from training.sync import ENVELOPE_BYTES, DeltaSync, SyncConfig, rows_per_delta

ROW_BYTES = {"fp32": 16, "fp16": 8, "int8_row": 4 + 7}


class Log(MemoryLog):
    """A log that refuses what is published while it is away."""

    is_away = False

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        if self.is_away:
            raise SinkUnavailable("told to refuse")
        super().publish(topic, key, value, partition=partition)

    def values(self) -> list[bytes]:
        return [record.value for record in self.read((DELTAS, 0), 0, 10**9)]

    def rows(self) -> list[TableDelta]:
        return [delta for delta in map(decode_delta, self.values()) if isinstance(delta, TableDelta)]


class Shard:
    """A learner and its sync over such a log."""

    def __init__(self, learner: Any, **config: Any) -> None:
        self.learner, self.log = learner, Log()
        self.config = SyncConfig(model="small-1", incarnation=1, **config)
        self.sync = DeltaSync(learner, DeltaPublisher(self.log), self.config)

    def assign(self, keys: Any, value: float = 1.0) -> None:
        self.learner.table.assign(keys, np.full((len(keys), 4), value, np.float32))

    def seal(self, now_ms: int = 2) -> bool:
        return self.sync.seal(as_of_ms=123, sealed_at_ms=now_ms)


@given(st.sampled_from(["fp32", "fp16", "int8_row"]), st.integers(600, 2000))
@settings(max_examples=30, deadline=None)
def test_no_delta_is_longer_than_allowed_and_each_but_the_last_is_nearly_full(
    small: Any, codec: Any, limit: int
) -> None:
    shard = Shard(small.learner(), codec=codec, delta_bytes=limit)
    shard.assign(np.arange(300, dtype=np.uint64))
    assert shard.seal(now_ms=2**62)
    *sizes, _ = map(len, shard.log.values())
    assert max(sizes) <= limit
    assert min(sizes[:-1], default=limit) > limit - ENVELOPE_BYTES - 100
    assert len(sizes) == -(-300 // rows_per_delta(shard.config, "rows", ROW_BYTES[codec]))


def test_only_the_last_delta_of_a_seal_says_that_all_has_arrived(small: Any) -> None:
    shard = Shard(small.learner(), delta_bytes=ENVELOPE_BYTES + 40 + 4 * (8 + 16))
    shard.assign(small.keys(*range(10)))
    assert shard.seal(now_ms=456)
    assert [
        (delta.base_sequence, delta.sequence, delta.as_of_ms, delta.sealed_at_ms, len(delta.updated_keys))
        for delta in shard.log.rows()
    ] == [(0, 1, 0, 0, 4), (1, 2, 0, 0, 4), (2, 3, 123, 456, 2)]


def test_what_waits_for_a_log_that_is_away_is_bounded_by_the_keys_there_are(small: Any) -> None:
    shard = Shard(small.learner())
    shard.log.is_away = True
    for seed in range(40):
        small.learn(shard.learner, seed)
        assert not shard.seal()
        assert shard.sync.pending_rows <= len(shard.learner.table) <= 2 * small.n_ids
        assert shard.learner.table.memory().bytes_changes == 0
    assert shard.sync.pending_rows == len(shard.learner.table)
    assert (shard.sync.rows_sent, shard.sync.failures) == (0, 40)
    shard.log.is_away = False
    assert shard.seal()
    assert (shard.sync.pending_rows, shard.sync.rows_sent) == (0, len(shard.learner.table))
    assert shard.log.rows()[0].base_sequence == 0


def test_a_row_that_its_codec_cannot_say_stays_pending_and_is_named(small: Any) -> None:
    shard = Shard(small.learner(), codec="fp16")
    shard.assign(small.keys(1))
    shard.assign(small.keys(2), np.nan)
    with pytest.raises(GradientError, match="NaN"):
        shard.seal()
    shard.assign(small.keys(2))
    assert shard.seal()
    (rows,) = shard.log.rows()
    assert rows.updated_keys.tolist() == small.keys(1, 2).tolist()


def test_dense_parameters_go_out_on_their_own_period_and_later_deltas_name_them(small: Any) -> None:
    shard = Shard(small.learner(), dense_period_ms=1000)
    for number, now_ms in enumerate((1, 400, 800, 1001, 1500)):
        small.learn(shard.learner, number)
        assert shard.seal(now_ms)
    deltas = [decode_delta(value) for value in shard.log.values()]
    assert [delta.sealed_at_ms for delta in deltas if isinstance(delta, DenseDelta)] == [1, 1001]
    assert [delta.dense_sequence for delta in shard.log.rows()] == [0, 1, 1, 1, 2]


def test_an_idle_shard_gives_a_sign_of_life_now_and_then(small: Any) -> None:
    shard = Shard(small.learner(), heartbeat_ms=1000, dense_period_ms=10**9)
    for now_ms in range(1, 3002, 100):
        assert shard.seal(now_ms)
    assert [delta.sealed_at_ms for delta in shard.log.rows()] == [1, 1001, 2001, 3001]


def test_a_row_that_a_group_lasso_set_to_zero_travels_as_expired(small: Any) -> None:
    lasso = GroupAdagrad(learning_rate=1.0, group_lasso=1.0)
    start = Uniform(low=-0.01, high=0.01)
    parts = [SliceSpec(name=f"dim{dim}", dim=dim, optimizer=lasso, initializer=start) for dim in (1, 3)]
    table = NativeTable(TableSpec(name="zeroed", slices=tuple(parts)), threads=1)
    shard = Shard(small.learner_over(table))
    weak, strong = small.keys(0, 1)
    grads = np.array([[0.01] * 4, [9.0] * 4], np.float32)
    table.learn(np.array([weak, strong]), grads, event_time_s=1)
    assert shard.seal()
    (rows,) = shard.log.rows()
    assert table.contains(np.array([weak, strong])).all()
    assert (rows.expired_keys.tolist(), rows.updated_keys.tolist()) == ([weak], [strong])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delta_bytes", 0),
        ("period_ms", 0),
        ("heartbeat_ms", 0),
        ("shortest_period_ms", 0),
        ("dense_period_ms", -1),
        ("codec", "bf16"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_when_the_config_is_built(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be .*{value}"):
        SyncConfig(**({"model": "small-1", "incarnation": 1} | {name: value}))
