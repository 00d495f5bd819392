"""A tiny KuaiRand in both layouts, and the real slice where it is at hand."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from feature_store.datasets.kuairand import load_kuairand
from feature_store.datasets.requests import play_requests
from feature_store.errors import DatasetLayoutError, DatasetUnavailable
from recsys.errors import ConfigError
from recsys.features import Feature, FeatureSchema, Ragged

SLICE = "kuairand_pure_standard_0425_0506.parquet"
LOG = {
    "user_id": [7, 8, 7],
    "video_id": [1, 2, 2],
    "time_ms": [1_650_812_741_436, 1_650_812_934_945, 1_650_813_203_982],
    "is_click": [1, 0, 1],
    "long_view": [0, 0, 1],
    "is_like": [0, 1, 0],
    "is_hate": [0, 0, 0],
    "tab": [1, 0, 14],
}
USERS = {
    "user_id": [7, 8],
    "user_active_degree": ["full_active", "UNKNOWN"],
    "is_live_streamer": [1, -124],
    "follow_user_num": [514, 0],
    "follow_user_num_range": ["500+", "0"],
    "onehot_feat0": [0, 3],
    "onehot_feat4": [2.0, None],
}
VIDEOS = {
    "video_id": [1, 2],
    "author_id": [900, 0],
    "video_type": ["NORMAL", "UNKNOWN"],
    "upload_dt": ["2022-04-09", "2022-04-11"],
    "upload_type": ["Web", "Kmovie"],
    "video_duration": [7_000.0, None],
    "server_width": [720.0, 1080.0],
    "server_height": [1280.0, 1280.0],
    "music_id": [0, 9_155_697_141],
    "music_type": [9.0, None],
    "tag": ["39,7", "unknown"],
    "counts": [102, 136],
}
HISTORY = {
    "user_id": [7],
    "history_len": [9],
    "watch_seq": [[2, 1, 2]],
    "like_seq": [[]],
    "long_watch_seq": [[2, 1]],
}


def write_parquet(folder):
    tables = {"standard_0425": LOG, "user_features": USERS, "video_features": VIDEOS}
    for name, columns in (tables | {"user_history_before_0425": HISTORY}).items():
        pq.write_table(pa.table(columns), folder / f"kuairand_pure_{name}.parquet")


def write_csv(folder):
    log = pa.table(LOG)
    tables = {
        "log_standard_4_08_to_4_21_pure": log.slice(2),
        "log_standard_4_22_to_5_08_pure": log.slice(0, 2),
        "user_features_pure": pa.table(USERS),
        "video_features_basic_pure": pa.table(VIDEOS),
    }
    for name, table in tables.items():
        pa_csv.write_csv(table, folder / f"{name}.csv")


LAYOUTS = {"parquet": write_parquet, "csv": write_csv}


@pytest.fixture(params=LAYOUTS)
def folder(request, tmp_path):
    LAYOUTS[request.param](tmp_path)
    return tmp_path


def values(entities, name, *ids):
    column = entities.take(np.array(ids), prefix="x")[f"x.{name}"]
    if not isinstance(column, Ragged):
        return column.tolist()
    ends = np.cumsum(column.lengths_N)
    return [column.values_T[e - n : e].tolist() for e, n in zip(ends, column.lengths_N, strict=True)]


def test_both_layouts_give_the_same_log_in_time_order(folder):
    log = load_kuairand(folder).log
    assert log.user_id_N.tolist() == LOG["user_id"]
    assert log.item_id_N.tolist() == LOG["video_id"]
    assert log.event_time_ms_N.tolist() == LOG["time_ms"]
    assert [log.domains[index] for index in log.domain_index_N] == ["1", "0", "14"]


@pytest.mark.parametrize(
    ("labels", "kinds", "done"),
    [
        (("is_click",), ("click",), [[1], [0], [1]]),
        (
            ("is_like", "is_click", "long_view"),
            ("like", "click", "long_view"),
            [[0, 1, 0], [1, 0, 0], [0, 1, 1]],
        ),
        (("is_hate",), ("hate",), [[0], [0], [0]]),
    ],
)
def test_there_is_feedback_only_where_a_chosen_action_was_done(folder, labels, kinds, done):
    log = load_kuairand(folder, labels=labels).log
    assert log.feedback_kinds == kinds
    assert np.array_equal(log.value_NK, np.where(np.array(done) > 0, 1.0, np.nan), equal_nan=True)


@pytest.mark.parametrize("label", ["is_follow", "is_comment", "is_forward", "is_hate"])
def test_every_label_of_the_owners_has_a_kind_of_its_own(recsys_data, label):
    done = sum(pq.read_table(recsys_data / SLICE)[label].to_pylist())
    log = load_kuairand(recsys_data, labels=(label,)).log
    kind = {"is_forward": "share"}.get(label, label.removeprefix("is_"))
    assert (log.feedback_kinds, np.isfinite(log.value_NK).sum()) == ((kind,), done)


def test_a_later_slice_continues_the_log(tmp_path):
    write_parquet(tmp_path)
    later = LOG | {"time_ms": [time_ms + 10**9 for time_ms in LOG["time_ms"]]}
    # It sorts before the other one: the clock decides, not the name.
    pq.write_table(pa.table(later), tmp_path / "a_standard_0507_0508.parquet")
    log = load_kuairand(tmp_path).log
    assert log.event_time_ms_N.tolist() == LOG["time_ms"] + later["time_ms"]
    assert log.user_id_N.tolist() == LOG["user_id"] * 2


def test_a_log_file_that_does_not_tell_what_was_done_is_left_out_with_a_warning(tmp_path, caplog):
    write_parquet(tmp_path)
    asked = pa.table({name: LOG[name] for name in ("user_id", "video_id", "time_ms", "tab")})
    pq.write_table(asked, tmp_path / "kuairand_pure_standard_0507_0508.parquet")
    assert load_kuairand(tmp_path).log.event_time_ms_N.tolist() == LOG["time_ms"]
    assert [(record.message, record.file) for record in caplog.records] == [
        ("log_file_left_out", str(tmp_path / "kuairand_pure_standard_0507_0508.parquet"))
    ]


@pytest.mark.parametrize("layout", [write_parquet, write_csv])
def test_a_log_without_the_chosen_label_is_refused(tmp_path, layout):
    layout(tmp_path)
    with pytest.raises(DatasetLayoutError, match="want a column named is_forward"):
        load_kuairand(tmp_path, labels=("is_click", "is_forward"))


def test_users_are_coded_and_0_is_unknown(folder):
    users = load_kuairand(folder).users
    assert values(users, "user_active_degree", 7, 8, 404) == [1, 0, 0]
    assert values(users, "is_live_streamer", 7, 8, 404) == [2, 1, 0]
    assert values(users, "follow_user_num_range", 7, 8) == [2, 1]
    assert values(users, "onehot_feat0", 7, 8) == [1, 4]
    assert values(users, "onehot_feat4", 7, 8) == [3, 0]
    assert "follow_user_num" not in users.names


def test_videos_have_basic_columns_and_no_statistics_of_the_month(folder):
    items = load_kuairand(folder).items
    assert values(items, "author", 1, 2, 404) == [2, 1, 0]
    assert values(items, "video_type", 1, 2) == [1, 0]
    assert values(items, "upload_day", 1, 2) == [19_091, 19_093]
    assert values(items, "duration_bucket", 1, 2) == [13, 0]
    assert values(items, "frame", 1, 2) == [1, 2]
    assert values(items, "music", 1, 2) == [0, 1]
    assert values(items, "music_type", 1, 2) == [10, 0]
    assert values(items, "tags", 1, 2) == [[40, 8], []]
    assert "counts" not in items.names


def test_histories_are_cut_to_their_last_entries_and_told_in_three_ways(tmp_path):
    write_parquet(tmp_path)
    users = load_kuairand(tmp_path, recent_length=2).users
    assert values(users, "recent_watches", 7, 8) == [[1, 2], []]
    assert values(users, "recent_watches_authors", 7, 8) == [[2, 1], []]
    assert values(users, "recent_watches_tags", 7, 8) == [[40, 0], []]
    assert values(users, "recent_likes", 7, 8) == [[], []]
    assert values(users, "recent_long_watches", 7, 8) == [[2, 1], []]


def test_a_history_is_counted_whole_however_short_its_list_is_cut(tmp_path):
    write_parquet(tmp_path)
    users = load_kuairand(tmp_path, recent_length=1).users
    # Nine watched: log2(10) = 3.3; two of them long: 2 log2(3) = 3.2; 10 * 2 / 9 = 2.2.
    assert values(users, "history_log2", 7, 8) == [3, 0]
    assert values(users, "history_half_log2", 7, 8) == [6, 0]
    assert values(users, "likes_log2", 7, 8) == [0, 0]
    assert values(users, "long_half_log2", 7, 8) == [3, 0]
    assert values(users, "long_rate", 7, 8) == [3, 0]


def test_without_a_history_table_the_columns_are_there_and_empty(tmp_path):
    write_csv(tmp_path)
    users = load_kuairand(tmp_path).users
    assert values(users, "recent_long_watches_authors", 7) == [[]]
    assert values(users, "history_log2", 7) == values(users, "long_rate", 7) == [0]


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(DatasetUnavailable, match="holds no KuaiRand log"):
        load_kuairand(tmp_path)


def test_a_missing_column_is_named(folder):
    for path in folder.glob("*user_features*"):
        path.unlink()
    pq.write_table(pa.table({"id": [1]}), folder / "kuairand_pure_user_features.parquet")
    with pytest.raises(DatasetLayoutError, match="want a column named user_id"):
        load_kuairand(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels", ()),
        ("labels", ("is_rand",)),
        ("labels", ("is_like", "is_like")),
        ("labels", "is_click"),
        ("recent_length", 51),
    ],
)
def test_a_choice_that_is_not_offered_is_refused(folder, name, value):
    with pytest.raises(ConfigError, match=f"{name} must be"):
        load_kuairand(folder, **{name: value})


def test_the_real_slice_keeps_its_rows_clicks_and_repeats(recsys_data):
    table = pq.read_table(recsys_data / SLICE)
    told = zip(*(table[name].to_pylist() for name in ("user_id", "video_id", "time_ms", "tab")), strict=True)
    dataset = load_kuairand(recsys_data)
    schema = FeatureSchema((Feature(name="tag", number=0, columns=("item.tags",), bits=(8,)),))
    shown, n_rows, n_clicks = set(), 0, 0
    for impression, feedback in play_requests(dataset, schema):
        shown.update((impression.request_id, item) for item in impression.item_ids_K.tolist())
        n_rows += len(impression.item_ids_K)
        n_clicks += len(feedback)
    assert (n_rows, n_clicks) == (table.num_rows, sum(table["is_click"].to_pylist()))
    assert len(shown) == len(set(told))
