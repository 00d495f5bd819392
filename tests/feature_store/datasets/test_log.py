import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.datasets.log import Dataset, InteractionLog
from feature_store.entities import EntityColumns
from recsys.errors import ConfigError, ShapeError


def log_of(times, build=InteractionLog.in_time_order, **changes):
    n = len(times)
    columns = {
        "user_id_N": np.arange(n, dtype=np.uint64),
        "item_id_N": np.arange(n, dtype=np.uint64),
        "event_time_ms_N": np.array(times, dtype=np.int64),
        "domain_index_N": np.zeros(n, dtype=np.int64),
        "value_NK": np.full((n, 1), np.nan),
        "delay_ms_N": np.zeros(n, dtype=np.int64),
    }
    return build(**({"feedback_kinds": ("click",)} | columns | changes))


@given(st.lists(st.integers(0, 5), max_size=20))
def test_rows_are_put_in_time_order_and_ties_keep_theirs(times):
    expected = [row for _, row in sorted(zip(times, range(len(times)), strict=True))]
    assert log_of(times).user_id_N.tolist() == expected


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_rows_are_cut_like_a_list(times, start, stop):
    log = log_of(times)
    assert log.rows(start, stop).item_id_N.tolist() == log.item_id_N.tolist()[start:stop]
    assert log.rows(start, stop).value_NK.shape == (len(log.item_id_N.tolist()[start:stop]), 1)


@given(st.lists(st.tuples(*[st.integers(0, 1)] * 4), max_size=20))
def test_the_first_of_the_rows_that_say_the_same_is_distinct(rows):
    user, item, domain, time = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    log = log_of(time, user_id_N=user, item_id_N=item, domain_index_N=domain, domains=("", "home"))
    in_order, first = sorted(rows, key=lambda row: row[3]), {}
    for place, row in enumerate(in_order):
        first.setdefault(row, place)
    assert log.distinct_rows().tolist() == sorted(first.values())


def test_rows_out_of_time_order_are_refused():
    with pytest.raises(ShapeError, match="not in time order"):
        log_of([2, 1], build=InteractionLog)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ShapeError, match="columns of one length"):
        log_of([1, 2], build=InteractionLog, delay_ms_N=np.zeros(3))


@pytest.mark.parametrize("shape", [(2,), (2, 2), (2, 0)])
def test_values_must_have_a_column_per_kind(shape):
    with pytest.raises(ShapeError, match=r"each of the kinds \('click',\), got value_NK of shape"):
        log_of([1, 2], value_NK=np.zeros(shape))


@pytest.mark.parametrize("kinds", [(), ("click", "click")])
def test_kinds_that_are_none_or_the_same_are_refused(kinds):
    with pytest.raises(ConfigError, match="one or more different kinds"):
        log_of([1], feedback_kinds=kinds, value_NK=np.zeros((1, len(kinds))))


def test_a_domain_index_without_a_name_is_refused():
    with pytest.raises(ShapeError, match="not in 0 to 0"):
        log_of([1, 2], domain_index_N=np.array([0, 1]))


def test_the_first_domain_must_be_no_domain():
    with pytest.raises(ConfigError, match="first domain must be ''"):
        log_of([1], domains=("home",))


def test_a_domain_is_found_by_name_and_a_new_one_is_no_domain():
    nobody = EntityColumns(np.zeros(0), {})
    dataset = Dataset(name="tiny", log=log_of([1], domains=("", "home")), users=nobody, items=nobody)
    assert [dataset.domain_index(name) for name in ("", "home", "new")] == [0, 1, 0]
