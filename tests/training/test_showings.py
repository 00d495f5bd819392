"""Rows that state labels of one showing are one example; all others stay."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.features import RaggedKeys
from recsys.interactions import plain_examples
from training.showings import one_row_per_showing

NAN = np.nan
LABELS = 3
ROW = st.tuples(
    st.integers(0, 2),
    st.lists(st.sampled_from([NAN, 0.0, 1.0]), min_size=LABELS, max_size=LABELS),
    st.sampled_from([1.0, 1.0, 1.0, -1.0]),
    st.booleans(),
)


def batch_of(rows):
    n = len(rows)
    item = np.array([row[0] for row in rows], np.uint64)
    plain = plain_examples(
        example_id_B=np.arange(n, dtype=np.uint64),
        event_time_ms_B=np.zeros(n, np.int64),
        label_B=np.zeros(n, np.float32),
        keys=RaggedKeys(item, np.ones((n, 1), np.uint8)),
        schema_fingerprint=1,
        item_id_B=item,
    )
    label = np.array([row[1] for row in rows], np.float32).reshape(n, LABELS)
    return dataclasses.replace(
        plain,
        request_id_B=["r"] * n,
        label_names=("a", "b", "c"),
        label_BL=label,
        sample_rate_BL=np.where(label == 0, np.float32(0.5), np.float32(1.0)),
        weight_B=np.array([row[2] for row in rows], np.float32),
        is_late_B=np.array([row[3] for row in rows], bool),
    )


def said(batch):
    """Each thing that is stated, with the rate and weight it is stated with."""
    return sorted(
        (int(batch.item_id_B[row]), label, float(batch.label_BL[row, label]),
         float(batch.sample_rate_BL[row, label]), float(batch.weight_B[row]))
        for row in range(len(batch))
        for label in range(len(batch.label_names))
        if not np.isnan(batch.label_BL[row, label])
    )  # fmt: skip


@given(st.lists(ROW, max_size=25))
def test_nothing_that_is_stated_is_lost_or_said_anew(rows):
    batch = batch_of(rows)
    merged, place = one_row_per_showing(batch)
    assert said(merged) == said(batch)
    assert merged.item_id_B[place].tolist() == batch.item_id_B.tolist()
    assert merged.keys.keys_T[place].tolist() == batch.keys.keys_T.tolist()


@given(st.lists(ROW, max_size=25))
def test_what_is_put_together_stays_so(rows):
    merged, _ = one_row_per_showing(batch_of(rows))
    again, place = one_row_per_showing(merged)
    assert said(again) == said(merged)
    assert len(again) <= len(merged)
    assert len(place) == len(merged)


def test_a_positive_and_the_negatives_beside_it_are_one_example():
    batch = batch_of(
        [(1, [1.0, NAN, NAN], 1.0, False), (1, [NAN, 0.0, 0.0], 1.0, False), (2, [0.0] * 3, 1.0, False)]
    )
    merged, place = one_row_per_showing(batch)
    assert merged.label_BL.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert merged.sample_rate_BL.tolist() == [[1.0, 0.5, 0.5], [0.5, 0.5, 0.5]]
    assert place.tolist() == [0, 0, 1]


def test_what_takes_back_or_comes_late_stays_a_row_of_its_own():
    rows = [
        (1, [0.0, NAN, NAN], -1.0, True),
        (1, [1.0, NAN, NAN], 1.0, True),
        (1, [NAN, 0.0, NAN], 1.0, False),
    ]
    assert len(one_row_per_showing(batch_of(rows))[0]) == 3


def test_a_batch_of_one_label_is_left_alone():
    batch = batch_of([(1, [1.0, NAN, NAN], 1.0, False)] * 2)
    single = dataclasses.replace(
        batch, label_names=("a",), label_BL=batch.label_BL[:, :1], sample_rate_BL=batch.sample_rate_BL[:, :1]
    )
    assert one_row_per_showing(single)[0] is single
