"""The corrections against counting what is kept, and what a learner does with them."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from recsys.errors import ConfigError, ShapeError
from recsys.ranking.learner import RankingLearner
from recsys.ranking.sampling_correction import corrected_loss, serving_shift, training_logits
from recsys.ranking.scorer import RankingScorer
from recsys.ranking.statements import Statements

RATES = st.sampled_from([Fraction(1), Fraction(1, 2), Fraction(1, 10), Fraction(1, 100)])
SHARES = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(999, 1000))
ROUNDING = 1e-5


def log_odds(p):
    return math.log(float(p)) - math.log1p(-float(p))


def kept_share(p, r, *, is_fast):
    """Share of positives among what is kept of one impression, counted: exact and without a logarithm."""
    negatives = (1 if is_fast else 1 - p) * r
    return p / (p + negatives)


def statements(*, rates, fast=None, weights=None):
    n = len(rates)
    return Statements(
        sample_rate_B=np.array(rates, np.float32),
        is_fast_B=np.zeros(n, np.bool_) if fast is None else np.array(fast, np.bool_),
        weight_B=np.ones(n, np.float32) if weights is None else np.array(weights, np.float32),
    )


def trained_logit(f, r, *, is_fast):
    row = [torch.tensor([value], dtype=torch.float64) for value in (f, float(r))]
    return float(training_logits(*row, torch.tensor([is_fast])))


@given(SHARES, RATES, st.booleans())
def test_the_training_log_odds_are_those_of_what_is_kept(p, r, is_fast):
    found = trained_logit(log_odds(p), r, is_fast=is_fast)
    assert found == pytest.approx(log_odds(kept_share(p, r, is_fast=is_fast)), abs=1e-9)


@given(SHARES, RATES)
def test_a_foreign_model_of_the_kept_rows_is_served_as_the_true_probability(p, r):
    kept = kept_share(p, r, is_fast=False)
    served = kept / (kept + (1 - kept) / r)
    shifted = 1 / (1 + math.exp(-(log_odds(kept) + serving_shift(float(r)))))
    assert served == p
    assert shifted == pytest.approx(float(p), abs=1e-9)


def test_the_numbers_of_two_percent_at_rate_a_tenth():
    f = log_odds(0.02)
    assert f == pytest.approx(-3.891820, abs=1e-6)
    assert trained_logit(f, 0.1, is_fast=False) == pytest.approx(-1.589235, abs=1e-6)
    assert 1 / (1 + math.exp(1.589235)) == pytest.approx(0.169492, abs=1e-6)
    for r, share in ((1.0, 0.019608), (0.1, 0.166667)):
        assert trained_logit(f, r, is_fast=True) == pytest.approx(log_odds(share), abs=1e-4)


@pytest.mark.parametrize(("r", "served"), [(0.5, 0.0204), (0.1, 0.0243), (0.01, 0.515)])
def test_rate_one_on_positives_would_serve_too_much(r, served):
    # Where the expected loss of p = 0.02 is least if positives are recorded at rate 1, all else right.
    p, rates = 0.02, torch.tensor([1.0, r], dtype=torch.float64)

    def slope(f):
        logit = torch.tensor([f, f], dtype=torch.float64, requires_grad=True)
        kept = torch.sigmoid(training_logits(logit, rates, torch.tensor([False, False])))
        (-p * kept[0].log() - (1 - p) * r * (1 - kept[1]).log()).backward()
        return float(logit.grad.sum())

    assert 1 / (1 + math.exp(-brentq(slope, -10, 10))) == pytest.approx(served, rel=0.005)


@pytest.mark.parametrize("f", [-80.0, 80.0, 1e4])
def test_extreme_log_odds_give_a_finite_loss_and_gradient_in_fast_emit(f):
    logit = torch.tensor([f, f], requires_grad=True)
    loss = corrected_loss(logit, torch.tensor([0.0, 1.0]), statements(rates=[0.1, 0.1], fast=[1, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logit.grad).all()


def learner_of(problem):
    return RankingLearner(problem.filled_table(), problem.towers[0], problem.pooling)


def rows_of(problem, learner):
    return learner.table.lookup(problem.all_keys())


def test_plain_statements_give_the_bits_of_none(problem):
    plain, stated = learner_of(problem), learner_of(problem)
    for seed in range(4):
        batch, labels_B = problem.batch(seed), problem.labels(seed)
        one = plain.step(batch, labels_B, event_time_s=1)
        two = stated.step(batch, labels_B, event_time_s=1, stated=statements(rates=[1.0] * 7))
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(rows_of(problem, plain), rows_of(problem, stated))
    for name, weight in plain.dense_weights().items():
        np.testing.assert_array_equal(weight, stated.dense_weights()[name])


def test_what_is_returned_is_the_served_probability_whatever_was_sampled(problem):
    learner, batch = learner_of(problem), problem.batch(0)
    before_B = learner.predict(batch)
    stated = statements(rates=[0.01] * 7, fast=[1, 0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(
        learner.step(batch, problem.labels(0), event_time_s=1, stated=stated), before_B
    )


def test_the_loss_is_the_log_loss_of_what_is_kept(problem):
    learner, batch, labels_B = learner_of(problem), problem.batch(1), problem.labels(1)
    p_B = learner.predict(batch).astype(float)
    rates, fast = [1.0, 0.5, 0.1, 0.01, 0.5, 0.1, 1.0], [0, 0, 0, 0, 1, 1, 1]
    kept_B = [kept_share(p, r, is_fast=bool(b)) for p, r, b in zip(p_B, rates, fast, strict=True)]
    want = -np.mean([math.log(q if y else 1 - q) for q, y in zip(kept_B, labels_B, strict=True)])
    found = learner.learn(batch, labels_B, event_time_s=1, stated=statements(rates=rates, fast=fast))
    assert found == pytest.approx(want, rel=ROUNDING)


def test_taking_back_a_negative_is_the_opposite_of_its_step(problem):
    batch, labels_B = problem.batch(2), np.zeros(7, np.float32)
    stated, withdrawn = learner_of(problem), learner_of(problem)
    before = rows_of(problem, stated)
    stated.step(batch, labels_B, event_time_s=1, stated=statements(rates=[0.1] * 7))
    withdrawn.step(batch, labels_B, event_time_s=1, stated=statements(rates=[0.1] * 7, weights=[-1] * 7))
    step = rows_of(problem, stated) - before
    assert np.abs(step).max() > ROUNDING
    np.testing.assert_allclose(rows_of(problem, withdrawn) - before, -step, atol=ROUNDING)


def test_a_scorer_of_a_foreign_model_lowers_its_odds_by_the_rate(problem):
    learner, batch = learner_of(problem), problem.batch(3)
    table, tower, weights = learner.table, problem.towers[0], learner.dense_weights()
    kept_N = RankingScorer(table, tower, problem.pooling, weights).score(batch).astype(float)
    served_N = RankingScorer(table, tower, problem.pooling, weights, sample_rate=0.1).score(batch)
    np.testing.assert_allclose(served_N, kept_N / (kept_N + (1 - kept_N) / 0.1), rtol=ROUNDING)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, math.nan])
def test_a_rate_that_is_none_is_refused(problem, rate):
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\]"):
        statements(rates=[1.0, rate])
    with pytest.raises(ConfigError, match=r"must be in \(0, 1\]"):
        RankingScorer(problem.filled_table(), problem.towers[0], problem.pooling, sample_rate=rate)


def test_statements_that_do_not_fit_are_refused(problem):
    with pytest.raises(ShapeError, match="want statements of 7 rows, got 3"):
        learner_of(problem).step(
            problem.batch(0), problem.labels(0), event_time_s=1, stated=statements(rates=[1.0] * 3)
        )
    with pytest.raises(ShapeError, match="one rate, mark and weight per row"):
        statements(rates=[1.0, 1.0], weights=[1.0])
    with pytest.raises(ConfigError, match="weights must be finite"):
        statements(rates=[1.0], weights=[math.inf])
