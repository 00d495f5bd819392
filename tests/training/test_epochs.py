"""Passes over rows: each row once a pass, in an order that its seed decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError, ShapeError
from recsys.evaluation.progressive import ProgressiveMetrics
from recsys.features import RaggedKeys
from recsys.ranking.learner import RankingLearner
from training.epochs import EpochsConfig, LabelledRows, learn_epochs, predict_rows


def rows_of(small: Any, seed: int = 0, n_rows: int = 30) -> LabelledRows:
    batch = small.examples(seed, n_rows)
    return LabelledRows(batch.keys, batch.label_BL, batch.event_time_ms_B // 1000)


def bits(small: Any, learner: RankingLearner) -> dict[str, bytes]:
    return small.bits_of(learner, ProgressiveMetrics(60_000))  # type: ignore[no-any-return]


def learned(small: Any, rows: LabelledRows, config: EpochsConfig) -> tuple[RankingLearner, list[int], int]:
    """(the learner, what was yielded, steps)."""
    learner, steps = small.learner(), [0]

    def count() -> None:
        steps[0] += 1

    return learner, list(learn_epochs(learner, rows, config, after_step=count)), steps[0]


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 25), st.booleans())
def test_each_pass_takes_every_row_once_in_steps_of_a_batch(
    small: Any, epochs: int, batch: int, n_rows: int, shuffled: bool
) -> None:
    rows = rows_of(small, n_rows=n_rows)
    config = EpochsConfig(epochs=epochs, batch=batch, shuffled=shuffled)
    learner, yielded, steps = learned(small, rows, config)
    assert yielded == list(range(1, epochs + 1))
    assert steps == epochs * -(-n_rows // batch)
    assert set(learner.table.keys().tolist()) == set(rows.keys.keys_T.tolist())


def test_in_the_order_given_a_pass_is_one_learning_step_after_another(small: Any) -> None:
    rows, by_hand = rows_of(small), small.learner()
    newest_s = int(rows.event_time_s_N.max())
    for _ in range(2):
        for begin in range(0, 30, 8):
            part = rows.take(np.arange(begin, min(begin + 8, 30)))
            by_hand.learn(part.keys, part.label_NL[:, 0], event_time_s=newest_s)
    learner, _, _ = learned(small, rows, EpochsConfig(epochs=2, batch=8, shuffled=False))
    assert bits(small, learner) == bits(small, by_hand)


def test_shuffled_passes_of_one_seed_are_alike_and_of_another_are_not(small: Any) -> None:
    rows = rows_of(small)
    first, again, other, in_order = (
        bits(small, learned(small, rows, EpochsConfig(epochs=2, batch=4, seed=seed, shuffled=shuffled))[0])
        for seed, shuffled in ((1, True), (1, True), (2, True), (1, False))
    )
    assert first == again
    assert first not in (other, in_order)


def test_the_caller_may_look_after_a_pass_and_stop(small: Any) -> None:
    rows, learner = rows_of(small), small.learner()
    passes = learn_epochs(learner, rows, EpochsConfig(epochs=5, batch=8))
    assert next(passes) == 1
    after_one = bits(small, learner)
    predict_rows(learner, rows.keys)
    passes.close()
    assert bits(small, learner) == after_one


def test_each_row_is_predicted_as_it_is_alone(small: Any) -> None:
    rows = rows_of(small, n_rows=9)
    learner, _, _ = learned(small, rows, EpochsConfig(epochs=1, batch=4))
    together_NL = predict_rows(learner, rows.keys)
    alone_NL = [predict_rows(learner, rows.keys.take(np.array([row]))) for row in range(9)]
    assert together_NL.shape == (9, 1)
    assert together_NL == pytest.approx(np.concatenate(alone_NL), abs=1e-6)


def test_more_rows_than_are_predicted_at_once_keep_their_order(small: Any) -> None:
    rows, learner = rows_of(small, n_rows=5), small.learner()
    small.learn(learner, 1, 30)
    many = rows.keys.take(np.arange(10_000) % 5)
    assert predict_rows(learner, many)[:, 0] == pytest.approx(
        np.tile(predict_rows(learner, rows.keys)[:, 0], 2_000), abs=1e-6
    )


def test_no_rows_give_no_predictions(small: Any) -> None:
    none = RaggedKeys(np.empty(0, np.uint64), np.empty((0, 2), np.uint8))
    assert predict_rows(small.learner(), none).shape == (0, 1)


@given(st.lists(st.integers(0, 9), max_size=12))
def test_rows_that_are_taken_keep_their_keys_labels_and_times(small: Any, places: list[int]) -> None:
    rows = rows_of(small, n_rows=10)
    taken = rows.take(np.array(places, np.int64))
    assert len(taken) == len(places)
    for at, place in enumerate(places):
        mine, theirs = taken.keys.take(np.array([at])), rows.keys.take(np.array([place]))
        assert mine.keys_T.tolist() == theirs.keys_T.tolist()
        assert taken.label_NL[at] == rows.label_NL[place]
        assert taken.event_time_s_N[at] == rows.event_time_s_N[place]


def test_rows_without_a_label_and_a_time_each_are_refused(small: Any) -> None:
    rows = rows_of(small, n_rows=3)
    with pytest.raises(ShapeError, match="times of 3 rows; got"):
        LabelledRows(rows.keys, rows.label_NL[:2], rows.event_time_s_N)
    with pytest.raises(ShapeError, match="want labels"):
        LabelledRows(rows.keys, rows.label_NL[:, 0], rows.event_time_s_N)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}])
def test_passes_without_steps_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="want epochs and batch >= 1"):
        EpochsConfig(**wrong)
