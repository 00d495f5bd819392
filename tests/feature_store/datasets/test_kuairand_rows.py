"""Files to be scored, in the owners' columns: tiny ones, and the real slice where it is at hand."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.datasets.kuairand import load_kuairand
from feature_store.datasets.kuairand_rows import read_kuairand_rows
from feature_store.errors import DatasetLayoutError, DatasetUnavailable

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**40),
        st.integers(0, 2**40),
        st.integers(0, 2**50),
        st.none() | st.integers(-2, 20),
    ),
    max_size=12,
)
NAMES = ("user_id", "video_id", "time_ms", "tab")
WRITERS = {"parquet": pq.write_table, "csv": pa_csv.write_csv}


def table_of(rows, **more):
    columns = dict(zip(NAMES, zip(*rows, strict=True) if rows else ((),) * 4, strict=True))
    return pa.table({name: pa.array(column, pa.int64()) for name, column in columns.items()} | more)


def written(folder, layout, table):
    path = folder / f"asked.{layout}"
    WRITERS[layout](table, path)
    return path


@pytest.mark.parametrize("layout", WRITERS)
@given(ROWS)
def test_rows_come_in_the_files_order_with_repeats_and_strangers(tmp_path_factory, layout, rows):
    asked = read_kuairand_rows(written(tmp_path_factory.mktemp("rows"), layout, table_of(rows)))
    known = {tab: tab + 1 for tab in range(15)}
    told = (asked.user_ids_N, asked.item_ids_N, asked.event_time_ms_N, asked.domain_index_N)
    assert list(zip(*(column.tolist() for column in told), strict=True)) == [
        (user, video, time_ms, known.get(tab, 0)) for user, video, time_ms, tab in rows
    ]


def test_a_file_is_told_by_its_content_not_by_its_name(tmp_path):
    table = table_of([(1, 2, 3, 4)], is_click=pa.array([1]))
    path = tmp_path / "date=20220507" / "rows"
    path.parent.mkdir()
    for write in WRITERS.values():
        write(table, path)
        assert read_kuairand_rows(path).item_ids_N.tolist() == [2]


def test_the_missing_columns_are_named(tmp_path):
    path = written(tmp_path, "csv", pa.table({"user_id": [1], "time_ms": [2], "is_click": [0]}))
    with pytest.raises(DatasetLayoutError, match=r"want the columns video_id, tab; got \['user_id'"):
        read_kuairand_rows(path)


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize("value", [None, -1])
def test_a_row_without_a_user_a_video_or_a_time_is_named(tmp_path, name, value):
    rows = [dict.fromkeys(NAMES, 5), dict.fromkeys(NAMES, 6) | {name: value}]
    path = written(tmp_path, "parquet", table_of([tuple(row.values()) for row in rows]))
    with pytest.raises(DatasetLayoutError, match=rf"as {name} of every row; 1 have none, the first is row 1"):
        read_kuairand_rows(path)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DatasetLayoutError, match=r"cut\.parquet is no whole parquet or csv file"):
        read_kuairand_rows(tmp_path / "cut.parquet")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetUnavailable, match=r"cannot read .*absent\.csv: No such file"):
        read_kuairand_rows(tmp_path / "absent.csv")


def test_the_real_slice_reads_as_the_rows_of_its_log(recsys_data):
    dataset = load_kuairand(recsys_data)
    rows = read_kuairand_rows(recsys_data / "kuairand_pure_standard_0425_0506.parquet")
    log = dataset.log
    # The slice lies in time order, as the log does.
    for asked_N, logged_N in (
        (rows.user_ids_N, log.user_id_N),
        (rows.item_ids_N, log.item_id_N),
        (rows.domain_index_N, log.domain_index_N),
        (rows.event_time_ms_N, log.event_time_ms_N),
    ):
        assert asked_N.dtype == logged_N.dtype
        assert np.array_equal(asked_N, logged_N)
    assert rows.utc_offset_hours == dataset.utc_offset_hours
