"""The short form of the sampling replay, which must notice its mutants, and what it is made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replays.lateness import policy_scores, second_half
from replays.models import synthetic_model
from replays.sampling import STRATA, Arm, sampled_metrics, scores, strata
from replays.stream import Stream
from replays.synthetic import World, make_stream
from replays.told import emitted_fast, waited, waited_at_most

NOISE = 0.06
"""Of the calibration, from learning so little; the full replay asks for 0.02 of ten times as much."""
SMALL = World(n_events=80_000, n_users=60, n_items=30, log_odds=-1.0)
TINY = World(n_events=400, n_users=20, n_items=10, days=1.0)


@pytest.fixture(scope="module")
def small_stream() -> Stream:
    return make_stream(SMALL, 0)


def calibration(stream: Stream, arm: Arm) -> float:
    stratum_N, draw_N = strata(stream), np.random.default_rng(2).random(len(stream))
    model = replace(synthetic_model(0), micro_batch=128)
    served_N = arm.served(stream, arm.told(stream, stratum_N, draw_N), model)
    return scores(stream, served_N, stratum_N, len(stream) // 2)["calibration_to_truth"]


@pytest.mark.parametrize(
    "arm",
    [
        Arm(style="train_time", rates=(0.1,)),
        Arm(style="serve_time", rates=(0.1,)),
        Arm(style="fast_emit", rates=(0.1,)),
        Arm(style="train_time", rates=(0.1, 0.3, 1.0)),
    ],
    ids=lambda arm: arm.name,
)
def test_what_is_served_is_calibrated_however_negatives_were_sampled(small_stream: Stream, arm: Arm) -> None:
    assert calibration(small_stream, arm) == pytest.approx(1.0, abs=NOISE)


@pytest.mark.parametrize("style", ["rate_1_on_positives", "corrected_twice"])
def test_the_replay_notices_a_correction_that_is_wrong(small_stream: Stream, style: str) -> None:
    mistaken = calibration(small_stream, Arm(style=style, rates=(0.1,)))  # type: ignore[arg-type]
    assert abs(mistaken - 1.0) > 5 * NOISE


def test_late_positives_bias_a_learner_that_drops_them_and_not_one_that_retracts(
    small_stream: Stream,
) -> None:
    model = replace(synthetic_model(0), micro_batch=128)
    found = {
        policy: policy_scores(small_stream, model, policy=policy, rate=1.0, seed=0)["calibration_to_truth"]
        for policy in ("drop", "retract")
    }
    assert found["retract"] == pytest.approx(1.0, abs=NOISE)
    # An hour's wait under delays of an hour on average keeps 1 - 1/e of the positives.
    assert found["drop"] == pytest.approx(1.0 - np.exp(-1.0), abs=NOISE)


def test_metrics_of_the_statements_are_those_of_all_rows(small_stream: Stream) -> None:
    truth_N = np.asarray(small_stream.probability_N, np.float32)
    draw_N = np.random.default_rng(3).random(len(small_stream))
    wanted = scores(small_stream, truth_N, strata(small_stream), 0)
    for tell in (waited, lambda s, r, d: emitted_fast(s, r, d, np.zeros(len(s)))):
        told = tell(small_stream, np.full(len(small_stream), 0.1), draw_N)
        found = sampled_metrics(told, truth_N, 0)
        for name, tolerance in (("auc", 0.01), ("calibration", 0.03), ("log_loss", 0.02)):
            assert found[name] == pytest.approx(wanted[name], abs=tolerance), name


@given(
    st.sampled_from([0.1, 0.5, 1.0]),
    st.sampled_from(["drop", "emit_positive", "retract"]),
    st.integers(0, 50),
)
def test_every_row_is_told_of_as_its_policy_says(rate: float, policy: str, seed: int) -> None:
    stream, random = make_stream(TINY, seed), np.random.default_rng(seed)
    draw_N, delay_s_N = random.random(len(stream)), random.exponential(600.0, len(stream))
    rate_N = np.full(len(stream), rate)
    told = waited_at_most(stream, rate_N, draw_N, delay_s_N, 600.0, policy=policy)
    assert (np.diff(told.at_s_M) >= 0).all()
    is_late_N = (stream.label_N > 0.5) & (delay_s_N >= 600.0)
    is_kept_N = draw_N < rate
    positives = np.bincount(told.row_M[told.label_M > 0.5], minlength=len(stream))
    negatives = np.bincount(
        told.row_M[told.label_M < 0.5], told.weight_M[told.label_M < 0.5], minlength=len(stream)
    )
    np.testing.assert_array_equal(
        positives, (stream.label_N > 0.5) & (~is_late_N if policy == "drop" else True)
    )
    stated_N = (stream.label_N < 0.5) | (is_late_N & (policy != "retract"))
    np.testing.assert_array_equal(negatives, stated_N & is_kept_N)


def test_labels_come_up_as_often_as_the_world_says_in_every_stratum() -> None:
    stream = make_stream(replace(SMALL, drift=0.1, user_days=2.0, item_days=1.0), 1)
    assert stream.probability_N is not None
    stratum_N = strata(stream)
    for number in range(len(STRATA)):
        part_N = stratum_N == number
        share = float(part_N.mean())
        assert share == pytest.approx((0.5, 0.3, 0.2)[number], abs=0.1)
        expected = stream.probability_N[part_N]
        noise = 4 * np.sqrt((expected * (1 - expected)).sum()) / part_N.sum()
        assert stream.label_N[part_N].mean() == pytest.approx(expected.mean(), abs=noise)


def test_ids_are_born_and_die_only_where_the_world_says_so() -> None:
    still, moving = (make_stream(replace(TINY, item_days=days), 0) for days in (None, 0.1))
    assert still.item_N.max() < TINY.n_items
    assert len(np.unique(moving.item_N)) > TINY.n_items
    late_N = second_half(moving)
    assert not np.isin(moving.item_N[late_N], moving.item_N[:40]).any()
