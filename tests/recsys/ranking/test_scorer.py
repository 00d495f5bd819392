"""The scorer against the learner's own forward pass, and while its weights change."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError, ShapeError, SnapshotError
from recsys.features import RaggedKeys
from recsys.ranking.learner import RankingLearner
from recsys.ranking.scorer import RankingScorer

ROUNDING = 1e-6


def trained(problem, which=0, steps=5):
    learner = RankingLearner(problem.empty_table(), problem.towers[which], problem.pooling)
    for seed in range(steps):
        learner.learn(problem.batch(seed), problem.labels(seed), event_time_s=1)
    return learner


def scorer_of(problem, learner, which=0):
    return RankingScorer(learner.table, problem.towers[which], problem.pooling, learner.dense_weights())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 12), st.integers(0, 1))
def test_scores_equal_the_learners_predictions(problem, seed, n_rows, which):
    """Known and unknown keys, empty bags, both poolings."""
    learner, batch = trained(problem, which), problem.batch(seed, n_rows)
    score_N = scorer_of(problem, learner, which).score(batch)
    assert score_N.dtype == np.float32
    np.testing.assert_allclose(score_N, learner.predict(batch), atol=ROUNDING)


def test_rows_learned_later_are_scored_without_a_new_scorer(problem):
    learner = trained(problem)
    scorer, batch = scorer_of(problem, learner), problem.batch(0)
    before_N = scorer.score(batch)
    learner.learn(batch, problem.labels(0), event_time_s=1)
    scorer.load_dense(learner.dense_weights())
    assert not np.array_equal(scorer.score(batch), before_N)
    np.testing.assert_allclose(scorer.score(batch), learner.predict(batch), atol=ROUNDING)


def test_a_score_during_a_swap_comes_from_one_whole_set_of_weights(problem):
    learner = trained(problem)
    scorer, batch, old = scorer_of(problem, learner), problem.batch(0), learner.dense_weights()
    new = {name: value + 1 for name, value in old.items()}
    allowed = []
    for weights in (old, new):
        scorer.load_dense(weights)
        allowed.append(scorer.score(batch))
    seen, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            seen.append(scorer.score(batch))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(200):
        scorer.load_dense((old, new)[i % 2])
    stop.set()
    for reader in readers:
        reader.join()
    assert all(any(np.array_equal(score_N, want_N) for want_N in allowed) for score_N in seen)


def test_weights_of_another_tower_are_refused_and_the_old_ones_stay(problem):
    learner, other = trained(problem), trained(problem, which=1)
    scorer, batch = scorer_of(problem, learner), problem.batch(0)
    before_N = scorer.score(batch)
    with pytest.raises(SnapshotError, match="same configuration"):
        scorer.load_dense(other.dense_weights())
    np.testing.assert_array_equal(scorer.score(batch), before_N)


def test_later_changes_to_given_weights_do_not_reach_the_scorer(problem):
    learner = trained(problem)
    weights, batch = learner.dense_weights(), problem.batch(0)
    scorer = RankingScorer(learner.table, problem.towers[0], problem.pooling, weights)
    before_N = scorer.score(batch)
    for value in weights.values():
        np.add(value, 1, out=value)
    np.testing.assert_array_equal(scorer.score(batch), before_N)


def test_keys_of_another_schema_and_unknown_poolings_are_refused(problem):
    learner = trained(problem)
    two_features = RaggedKeys(np.zeros(2, np.uint64), np.ones((1, 2), np.uint8))
    with pytest.raises(ShapeError, match="want keys of 3 features per row"):
        scorer_of(problem, learner).score(two_features)
    with pytest.raises(ConfigError, match="pooling of 'user' must be 'sum' or 'mean', got 'max'"):
        RankingScorer(learner.table, problem.towers[0], {**problem.pooling, "user": "max"})


def test_a_server_that_scores_never_loads_torchrec():
    check = "import sys, recsys.ranking.scorer, recsys.ranking.deepfm; sys.exit('torchrec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
