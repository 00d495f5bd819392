"""Which rows are learned, and as what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.evaluation.progressive import ProgressiveMetrics
from training.batch_loop import train_on
from training.micro_batches import learn_in_pieces


def only(batch: Any, kept_B: Any) -> Any:
    """The batch of some rows; what the learner does not read stays as it is."""
    columns = {
        name: getattr(batch, name)[kept_B]
        for name in ("example_id_B", "event_time_ms_B", "label_BL", "sample_rate_BL", "weight_B", "is_fast_B")
    }
    return replace(batch, **columns, keys=batch.keys.take(np.flatnonzero(kept_B)))


@settings(max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 99))
def test_rows_that_say_nothing_of_the_label_might_as_well_not_be_there(
    small: Any, known: list[bool], size: int, seed: int
) -> None:
    is_known_B, batch = np.array(known), small.examples(seed, len(known))
    label_BL = np.where(is_known_B[:, None], batch.label_BL, np.float32(np.nan))
    sparse, dense = small.learner(), small.learner()
    predicted_B = learn_in_pieces(sparse, replace(batch, label_BL=label_BL), size)
    wanted = learn_in_pieces(dense, only(batch, is_known_B), size)
    np.testing.assert_array_equal(predicted_B[is_known_B], wanted)
    assert np.isnan(predicted_B[~is_known_B]).all()
    assert small.rows_of(sparse.table) == small.rows_of(dense.table)


def test_rates_marks_and_weights_reach_the_loss(small: Any) -> None:
    batch = small.examples(3, 8)
    plain = small.learner()
    learn_in_pieces(plain, batch, 4)
    for change in (
        {"sample_rate_BL": np.full((8, 1), 0.1, np.float32)},
        {"is_fast_B": np.ones(8, np.bool_)},
        {"weight_B": -np.ones(8, np.float32)},
    ):
        learner = small.learner()
        learn_in_pieces(learner, replace(batch, **change), 4)
        assert small.rows_of(learner.table) != small.rows_of(plain.table), change


def test_a_pass_counts_each_kept_negative_for_those_that_were_not(small: Any) -> None:
    batch = small.examples(4, 12)
    metrics = ProgressiveMetrics(60_000)
    sampled = replace(batch, sample_rate_BL=np.full((12, 1), 0.25, np.float32))
    train_on([sampled], small.learner(), micro_batch=4, metrics=metrics)
    n_positive = int((batch.label_B > 0.5).sum())
    assert 0 < n_positive < 12
    assert metrics.total.metrics()["examples"] == n_positive + 4 * (12 - n_positive)
