"""Replays of syncing, failures and their cost, against loops that a reader can check by eye."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replays.failures import (
    LOST,
    UNHARMED,
    all_users,
    copy_of,
    draw_failures,
    hit_rows,
    lost_user_days,
    play,
    rows_differing_after_replay,
)
from replays.models import synthetic_model
from replays.stream import Stream
from replays.syncing import (
    SyncArm,
    learn_rows,
    mean_shard_auc,
    online_start,
    pooled_scores,
    serve,
    shard_edges,
)
from replays.synthetic import World, make_stream
from replays.touching import growth_exponent, seal_all
from sklearn.metrics import roc_auc_score

MODEL = synthetic_model(0)
WORLD = World(n_events=7_000, n_users=60, n_items=30, days=7.0, user_days=3.0)


@pytest.fixture(scope="module")
def stream() -> Stream:
    return make_stream(WORLD, 0)


def test_each_server_answers_with_what_was_learned_by_its_last_sync(stream: Stream) -> None:
    arms = [SyncArm(name="frozen", shards=1), SyncArm(name="online", shards=5)]
    found = serve(stream, MODEL, [*arms, SyncArm(name="stale_dense", shards=5, dense="frozen")])
    learner, first = MODEL.learner(), online_start(stream, MODEL)
    edges = shard_edges(stream, MODEL, 5).tolist()
    learn_rows(learner, stream, 0, first, MODEL.micro_batch)
    frozen = learner.predict(stream.keys_between(first, len(stream)))
    dense = learner.dense_weights()
    np.testing.assert_allclose(found["frozen"], frozen, rtol=1e-6)
    for start, stop in pairwise(edges):
        keys, part = stream.keys_between(start, stop), slice(start - first, stop - first)
        np.testing.assert_allclose(found["online"][part], learner.predict(keys), rtol=1e-6)
        stale = MODEL.scorer(learner)
        stale.load_dense(dense)
        np.testing.assert_allclose(found["stale_dense"][part], stale.score(keys), rtol=1e-6)
        learn_rows(learner, stream, start, stop, MODEL.micro_batch)


@given(st.integers(1, 60))
def test_shards_cover_the_online_part_in_whole_steps(shards: int) -> None:
    made = make_stream(World(n_events=7_000, n_users=5, n_items=5), 0)
    edges = shard_edges(made, MODEL, shards)
    assert edges[0] == online_start(made, MODEL)
    assert edges[-1] == len(made)
    assert (edges[:-1] % MODEL.micro_batch == 0).all()
    # More shards than steps leave some empty; none overlaps another.
    assert (np.diff(edges) >= 0).all()


def test_late_labels_mean_an_older_model(stream: Stream) -> None:
    day = SyncArm(name="late", shards=5, delay_s=86_400)
    served = serve(stream, MODEL, [day])["late"]
    first, edges = online_start(stream, MODEL), shard_edges(stream, MODEL, 5)
    learner = MODEL.learner()
    known = int(np.searchsorted(stream.time_s_N, stream.time_s_N[edges[2]] - 86_400))
    learn_rows(learner, stream, 0, known - known % MODEL.micro_batch, MODEL.micro_batch)
    wanted = learner.predict(stream.keys_between(int(edges[2]), int(edges[3])))
    np.testing.assert_allclose(served[edges[2] - first : edges[3] - first], wanted, rtol=1e-6)


def test_auc_is_scikit_learns_with_ties_too(stream: Stream) -> None:
    first = online_start(stream, MODEL)
    label_L = stream.label_N[first:]
    served_L = np.random.default_rng(0).integers(0, 9, len(label_L)).astype(np.float32) / 10
    found = pooled_scores(stream, served_L, first)["auc"]
    assert found == pytest.approx(roc_auc_score(label_L, served_L))
    whole = np.array([first, len(stream)])
    assert mean_shard_auc(stream, served_L, whole) == pytest.approx(found)


def test_a_shard_put_back_as_it_was_just_now_answers_as_if_unharmed(stream: Stream) -> None:
    draws = draw_failures(stream, MODEL, n_draws=2, n_shards=4, seed=1)
    play(stream, MODEL, draws, 4)
    for draw in draws:
        np.testing.assert_array_equal(draw.served["0"], draw.served[UNHARMED])
        assert not np.array_equal(draw.served["1d"], draw.served[UNHARMED])
        hit_W = hit_rows(stream, draw, 4)
        shift_W = np.abs(draw.served[LOST] - draw.served[UNHARMED])
        assert shift_W[hit_W].mean() > shift_W[~hit_W].mean()


def test_reading_on_from_the_snapshots_offsets_loses_nothing(stream: Stream) -> None:
    at = 64 * 90
    assert rows_differing_after_replay(stream, MODEL, at=at, age_s=86_400) == 0


def test_a_copy_that_misses_one_step_is_noticed(stream: Stream) -> None:
    learner = MODEL.learner()
    learn_rows(learner, stream, 0, 640, MODEL.micro_batch)
    fork = copy_of(MODEL, learner)
    learn_rows(learner, stream, 640, 704, MODEL.micro_batch)
    keys = learner.table.keys()
    assert not np.array_equal(learner.table.lookup(keys), fork.table.lookup(keys))


def test_user_days_lost_do_not_depend_on_the_number_of_shards(stream: Stream) -> None:
    users = all_users(stream)
    for n_shards in (10, 100):
        lost = lost_user_days(users, n_shards=n_shards, daily_failures=0.01, days=20_000, seed=0)
        # Ages are even below a day, so half a day is lost on average: f·S/2.
        assert lost == pytest.approx(0.005, rel=0.15)


def test_a_seal_carries_each_touched_row_once_in_the_bytes_of_its_codec(stream: Stream) -> None:
    sealed = seal_all(stream, MODEL, [640, 1280])
    begin = len(stream) // 2 // 64 * 64
    first = sealed[0]
    touched = np.unique(stream.keys_between(begin, begin + 640).keys_T)
    assert first.rows[0] == len(touched)
    dims = 1 + 8
    for name, row_bytes in (("fp32", 4 * dims), ("fp16", 2 * dims), ("int8_row", dims + 2 * 4)):
        assert first.bytes[name][0] == len(touched) * (8 + row_bytes)
    assert 0.0 < growth_exponent(sealed) < 1.0
