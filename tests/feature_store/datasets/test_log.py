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
        "value_N": np.full(n, np.nan),
        "delay_ms_N": np.zeros(n, dtype=np.int64),
    }
    return build(**({"feedback_kind": "click"} | columns | changes))


@given(st.lists(st.integers(0, 5), max_size=20))
def test_rows_are_put_in_time_order_and_ties_keep_theirs(times):
    expected = [row for _, row in sorted(zip(times, range(len(times)), strict=True))]
    assert log_of(times).user_id_N.tolist() == expected


@given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_rows_are_cut_like_a_list(times, start, stop):
    log = log_of(times)
    assert log.rows(start, stop).item_id_N.tolist() == log.item_id_N.tolist()[start:stop]


def test_rows_out_of_time_order_are_refused():
    with pytest.raises(ShapeError, match="not in time order"):
        log_of([2, 1], build=InteractionLog)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ShapeError, match="columns of one length"):
        log_of([1, 2], build=InteractionLog, value_N=np.zeros(3))


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
