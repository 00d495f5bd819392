import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.datasets.columns import (
    codes,
    dense,
    first_of,
    flags,
    integers,
    last_of_each,
    list_codes,
    list_numbers,
    shifted,
)
from feature_store.errors import DatasetLayoutError

WORDS = st.sampled_from(["", "rock", "jazz", "folk"])
LISTS = st.lists(st.lists(WORDS, max_size=4), max_size=6)


def arrow(values, kind=None):
    return pa.chunked_array([pa.array(values, kind)])


@given(st.lists(WORDS))
def test_codes_follow_sorted_order_and_leave_0_for_the_empty_text(words):
    known = sorted(set(words) - {""})
    assert codes(words).tolist() == [known.index(word) + 1 if word else 0 for word in words]


@given(st.lists(st.integers(-3, 9)))
def test_dense_codes_rank_the_numbers_above_0(numbers):
    known = sorted({number for number in numbers if number > 0})
    expected = [known.index(number) + 1 if number > 0 else 0 for number in numbers]
    assert dense(np.array(numbers, dtype=np.int64)).tolist() == expected


@given(LISTS)
def test_list_codes_drop_empty_texts_and_repeats(lists):
    known = sorted({word for words in lists for word in words if word})
    expected = [[known.index(word) + 1 for word in dict.fromkeys(words) if word] for words in lists]
    coded = list_codes(lists)
    assert coded.values_T.tolist() == [code for one in expected for code in one]
    assert coded.lengths_N.tolist() == [len(one) for one in expected]
    assert first_of(coded).tolist() == [one[0] if one else 0 for one in expected]


@given(st.lists(st.lists(st.integers(0, 10**18 - 1), max_size=4), max_size=6))
def test_numbers_in_lists_keep_their_value_whatever_else_the_column_holds(lists):
    coded = list_numbers([[str(number) for number in one] for one in lists])
    assert coded.values_T.tolist() == [number + 1 for one in lists for number in dict.fromkeys(one)]


@pytest.mark.parametrize("text", ["food", "-1", "1.5", str(10**18)])
def test_a_text_in_a_list_of_numbers_is_refused(text):
    with pytest.raises(DatasetLayoutError, match=f"want lists of numbers from 0 on, got '{text}' in one"):
        list_numbers([["1", text]])


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6), st.integers(0, 4))
def test_histories_keep_their_last_entries_also_in_a_sliced_column(lists, at_most):
    whole = pa.chunked_array([pa.array([[1, 2, 3], *lists], pa.list_(pa.int32()))]).slice(1)
    kept = last_of_each(whole, at_most)
    expected = [numbers[max(len(numbers) - at_most, 0) :] for numbers in lists]
    assert kept.values_T.tolist() == [number for one in expected for number in one]
    assert kept.lengths_N.tolist() == [len(one) for one in expected]


@pytest.mark.parametrize(
    "column",
    [
        arrow([1, None, 3]),
        arrow([1.0, float("nan"), 3.0]),
        arrow(["1", None, "3.0"]),
        arrow(["1", None, "3"], pa.large_string()),
    ],
)
def test_numbers_are_read_from_any_type_and_null_is_what_was_asked(column):
    assert integers(column, null=-1).tolist() == [1, -1, 3]


def test_a_column_without_a_value_is_null_throughout():
    assert integers(arrow([None, None], pa.null()), null=-1).tolist() == [-1, -1]
    assert integers(arrow([], pa.null())).tolist() == []


def test_a_text_that_is_no_number_is_refused():
    with pytest.raises(DatasetLayoutError, match="want a column of numbers"):
        integers(arrow(["one"]))


def test_small_numbers_and_flags_keep_0_for_unknown():
    assert shifted(arrow([0, 5, None, -7])).tolist() == [1, 6, 0, 0]
    assert flags(arrow([0, 1, None, -124])).tolist() == [1, 2, 0, 1]
