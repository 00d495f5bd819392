from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.entities import EntityColumns, RequestRows, request_columns
from recsys.errors import ShapeError
from recsys.features import Ragged

IDS = st.integers(0, 2**64 - 1)
ENTITIES = st.dictionaries(
    IDS, st.tuples(st.integers(0, 99), st.lists(st.integers(1, 9), max_size=4)), max_size=9
)
NOBODY = EntityColumns(np.zeros(0, dtype=np.uint64), {})


def ragged(lists):
    flat = [value for values in lists for value in values]
    return Ragged(np.array(flat, dtype=np.int64), np.array([len(values) for values in lists], dtype=np.int64))


def as_lists(column):
    ends = np.cumsum(column.lengths_N)
    return [
        column.values_T[end - length : end].tolist()
        for end, length in zip(ends, column.lengths_N, strict=True)
    ]


def entities_of(rows):
    """EntityColumns of {id: (age, liked)}."""
    ages = np.array([age for age, _ in rows.values()], dtype=np.int64)
    columns = {"age": ages, "liked": ragged([liked for _, liked in rows.values()])}
    return EntityColumns(np.array(list(rows), dtype=np.uint64), columns)


def one_request(**changes):
    rows = {"user_ids_N": [1], "item_ids_N": [1], "domain_index_N": [0], "event_time_ms_N": [0]} | changes
    offset = rows.pop("utc_offset_hours", 0)
    return RequestRows(**{name: np.array(row) for name, row in rows.items()}, utc_offset_hours=offset)


@given(ENTITIES, st.lists(IDS, max_size=5), st.randoms(use_true_random=False))
def test_taking_equals_a_dictionary_with_zero_and_the_empty_list_for_strangers(rows, strangers, random):
    asked = [*rows, *rows, *strangers]
    random.shuffle(asked)
    taken = entities_of(rows).take(np.array(asked, dtype=np.uint64), prefix="user")
    by_hand = [rows.get(one, (0, [])) for one in asked]
    assert taken["user.age"].tolist() == [age for age, _ in by_hand]
    assert as_lists(taken["user.liked"]) == [liked for _, liked in by_hand]


@given(st.integers(0, 4_102_444_800_000), st.integers(-12, 14))
def test_the_clock_columns_equal_those_of_the_calendar(time_ms, offset):
    columns = request_columns(NOBODY, NOBODY, one_request(event_time_ms_N=[time_ms], utc_offset_hours=offset))
    local = datetime.fromtimestamp(time_ms // 1000, UTC) + timedelta(hours=offset)
    days = (local.replace(tzinfo=None) - datetime(1970, 1, 1)).days
    monday = (local.replace(tzinfo=None) - datetime(1969, 12, 29)).days // 7
    got = [columns[f"request.{name}"].tolist() for name in ("hour", "weekday", "day", "week")]
    assert got == [[local.hour], [local.weekday()], [days], [monday]]


def test_one_user_and_many_items_share_the_users_columns():
    users, items = entities_of({7: (30, [1, 2])}), entities_of({5: (1, []), 6: (2, [9])})
    columns = request_columns(
        users, items, one_request(user_ids_N=[7], item_ids_N=[6, 404, 5], domain_index_N=[3])
    )
    assert columns["user.id"].tolist() == [7, 7, 7]
    assert columns["user.age"].tolist() == [30, 30, 30]
    assert as_lists(columns["user.liked"]) == [[1, 2]] * 3
    assert columns["item.id"].tolist() == [6, 404, 5]
    assert as_lists(columns["item.liked"]) == [[9], [], []]
    assert columns["request.domain"].tolist() == [3, 3, 3]


def test_every_column_that_is_listed_can_be_read_with_one_entry_per_row():
    people = entities_of({7: (30, [1, 2])})
    columns = request_columns(people, people, one_request(item_ids_N=[1, 2, 7]))
    lengths = {
        len(c.lengths_N) if isinstance(c, Ragged) else len(c) for c in (columns[name] for name in columns)
    }
    assert lengths == {3}
    assert len(columns) == len(list(columns))


@pytest.mark.parametrize(("days_later", "age"), [(-1, 1), (0, 1), (1, 2), (9_000, 255)])
def test_an_items_age_counts_days_from_its_upload_within_1_to_255(days_later, age):
    items = EntityColumns(np.array([5]), {"upload_day": np.array([19_000])})
    columns = request_columns(
        NOBODY,
        items,
        one_request(item_ids_N=[5, 404], event_time_ms_N=[(19_000 + days_later) * 86_400_000]),
    )
    assert columns["request.item_age"].tolist() == [age, 0]


def test_an_id_given_twice_is_refused():
    with pytest.raises(ShapeError, match="an id occurs twice"):
        EntityColumns(np.array([1, 1]), {})


@pytest.mark.parametrize("column", [np.array([1]), ragged([[1]])])
def test_a_column_of_another_length_is_refused(column):
    with pytest.raises(ShapeError, match="'age': got 1 rows, want 2"):
        EntityColumns(np.array([1, 2]), {"age": column})


def test_axes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"got \[2, 3, 1, 1\]"):
        request_columns(NOBODY, NOBODY, one_request(user_ids_N=[1, 2], item_ids_N=[1, 2, 3]))
