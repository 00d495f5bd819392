"""KuaiRand-Pure: impressions of a short-video app, with what people did, by tab of the app.

Reads a slice as parquet (``kuairand_pure_standard_*.parquet`` beside its user and video tables) or the
owners' csv files (``log_standard_*.csv``, ``user_features_pure.csv``, ``video_features_basic_pure.csv``).
Several log files are one log. One without any label says nothing of what people did: it is left out.
Gao et al., CIKM 2022; CC BY-SA 4.0. The domain of a row is its tab, its clock is UTC+8.

The log tells whether something was done, not when: feedback is assumed one second after the showing.
A row without any chosen action has no feedback at all; a consumer has to wait and then give up.

Items have basic columns only: the statistics beside them span the whole month and would tell the
future. These are ``author``, ``video_type``, ``upload_type``, ``upload_day`` (days since 1970),
``duration_bucket`` (quarter octaves of 1 + seconds, plus 1), ``width``, ``height``, ``frame`` (both as one
code), ``music``, ``music_type``, ``tags`` (a list) and ``first_tag``.

Users have codes (0 unknown; flags 1 no, 2 yes): ``user_active_degree``, ``is_*``, ``*_range``,
``onehot_feat*``. What they did before the log begins is in lists of videos, oldest first:
``recent_watches``, ``recent_likes`` and ``recent_long_watches``, each also as ``*_authors`` and ``*_tags``
(the first tag of each), and in numbers (n = all they watched, at most 50 of which are listed):
``history_log2`` and ``likes_log2`` (floor of log2 of 1 + count), ``history_half_log2`` and
``long_half_log2`` (floor of 2 log2 of 1 + count), ``long_rate`` (1 + floor of ten times the share of
listed ones watched long). All are empty or 0 for who has no history, or where the folder has none.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.datasets.columns import (
    codes,
    column,
    dense,
    first_of,
    flags,
    integers,
    last_of_each,
    list_numbers,
    read_table,
    shifted,
    texts,
)
from feature_store.datasets.log import NO_DOMAIN, Dataset, InteractionLog
from feature_store.entities import EntityColumns
from feature_store.errors import DatasetLayoutError, DatasetUnavailable
from recsys.errors import ConfigError
from recsys.features import Column, Ragged
from recsys.keys import Ids

log = logging.getLogger(__name__)

Label = Literal["is_click", "long_view", "is_like", "is_follow", "is_comment", "is_forward", "is_hate"]
KIND_OF_LABEL: dict[Label, str] = {
    "is_click": "click",
    "long_view": "long_view",
    "is_like": "like",
    "is_follow": "follow",
    "is_comment": "comment",
    "is_forward": "share",
    "is_hate": "hate",
}

FEEDBACK_DELAY_MS = 1_000
UTC_OFFSET_HOURS = 8
TABS = tuple(str(tab) for tab in range(15))
ROW_COLUMNS = ("user_id", "video_id", "time_ms", "tab")
HISTORIES = {
    "recent_watches": "watch_seq",
    "recent_likes": "like_seq",
    "recent_long_watches": "long_watch_seq",
}
LISTED_AT_MOST = 50
HISTORY_NUMBERS = ("history_log2", "likes_log2", "history_half_log2", "long_half_log2", "long_rate")
ADVICE = "pass the folder that holds the parquet slice or the owners' csv files"


def load_kuairand(
    folder: Path, *, labels: tuple[Label, ...] = ("is_click",), recent_length: int = 10
) -> Dataset:
    """The log in ``folder``, with a kind of feedback for each of ``labels``, given where that is 1.

    ``recent_length``, 0 to 50, is how much of each history is kept, the last of it. Raises
    DatasetUnavailable when there is no log in the folder, DatasetLayoutError when a column is missing.
    """
    if not labels or len(set(labels)) != len(labels) or not set(labels) <= set(KIND_OF_LABEL):
        raise ConfigError(f"labels must be one or more of {get_args(Label)}, each once; got {labels!r}")
    if not 0 <= recent_length <= LISTED_AT_MOST:
        raise ConfigError(f"recent_length must be 0 to {LISTED_AT_MOST}, got {recent_length}")
    logs = _files(folder, "*_standard_*.parquet") or _files(folder, "log_standard_*.csv")
    if not logs:
        raise DatasetUnavailable(f"{folder} holds no KuaiRand log; {ADVICE}")
    items = _items(_table(folder, "video_features"))
    users = _users(_table(folder, "user_features"), _history(folder), items, recent_length)
    return Dataset(
        name="kuairand",
        log=_log(_telling(logs), labels),
        users=users,
        items=items,
        utc_offset_hours=UTC_OFFSET_HOURS,
    )


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if folder.is_dir() else []


def _table(folder: Path, what: str) -> pa.Table:
    """The table of users or videos, as parquet or else as csv."""
    found = _files(folder, f"*{what}*.parquet") or _files(folder, f"{what}_basic_pure.csv")
    found = found or _files(folder, f"{what}_pure.csv")
    if not found:
        raise DatasetUnavailable(f"{folder} holds no {what} table; {ADVICE}")
    return read_table(found[0])


def _history(folder: Path) -> pa.Table | None:
    """Who watched what before the log begins; the owners' layout has no such table."""
    found = _files(folder, "*user_history_before_*.parquet")
    return read_table(found[0]) if found else None


def _telling(paths: list[Path]) -> list[pa.Table]:
    """The log files that tell what was done; all of them where none does."""
    tables = {path: read_table(path) for path in paths}
    silent = [path for path, table in tables.items() if set(KIND_OF_LABEL).isdisjoint(table.column_names)]
    if len(silent) == len(paths):
        return list(tables.values())
    for path in silent:
        log.warning("log_file_left_out", extra={"file": str(path), "reason": "it has no label column"})
    return [table for path, table in tables.items() if path not in silent]


def _log(tables: list[pa.Table], labels: tuple[Label, ...]) -> InteractionLog:
    """All rows of all files, in time order."""
    user_N, item_N, time_N, tab_N, *label_KN = (
        np.concatenate([integers(column(table, name)) for table in tables])
        for name in (*ROW_COLUMNS, *labels)
    )
    if len(tab_N) and not 0 <= tab_N.min() <= tab_N.max() < len(TABS):
        raise DatasetLayoutError(f"want tabs 0 to {len(TABS) - 1}, got {tab_N.min()} to {tab_N.max()}")
    return InteractionLog.in_time_order(
        feedback_kinds=tuple(KIND_OF_LABEL[label] for label in labels),
        domains=NO_DOMAIN + TABS,
        user_id_N=user_N,
        item_id_N=item_N,
        event_time_ms_N=time_N,
        domain_index_N=tab_N + 1,
        value_NK=np.where(np.stack(label_KN, axis=1) > 0, 1.0, np.nan),
        delay_ms_N=np.full(len(user_N), FEEDBACK_DELAY_MS),
    )


def _items(table: pa.Table) -> EntityColumns:
    """Basic columns of the videos."""
    width_N, height_N = integers(column(table, "server_width")), integers(column(table, "server_height"))
    seconds_N = integers(column(table, "video_duration")) / 1_000
    tags = list_numbers([_split_tags(text) for text in texts(column(table, "tag"))])
    uploaded = pc.cast(pc.cast(pc.cast(column(table, "upload_dt"), pa.string()), pa.date32()), pa.int32())
    columns: dict[str, Column] = {
        "author": dense(integers(column(table, "author_id"), null=-1) + 1),
        "video_type": codes(texts(column(table, "video_type")), unknown=("", "UNKNOWN")),
        "upload_type": codes(texts(column(table, "upload_type")), unknown=("", "UNKNOWN")),
        "upload_day": integers(uploaded),
        "duration_bucket": np.where(seconds_N > 0, 1 + np.floor(4 * np.log2(1 + seconds_N)), 0).astype(
            np.int64
        ),
        "width": width_N,
        "height": height_N,
        "frame": dense(width_N * 65_536 + height_N),
        "music": dense(integers(column(table, "music_id"))),
        "music_type": shifted(column(table, "music_type")),
        "tags": tags,
        "first_tag": first_of(tags),
    }
    return EntityColumns(integers(column(table, "video_id")), columns)


def _split_tags(text: str) -> list[str]:
    """Tags of a video; "unknown" is none, and a number may have been read as a decimal one."""
    return [tag.removesuffix(".0") for tag in text.split(",") if tag not in ("", "unknown")]


def _users(table: pa.Table, history: pa.Table | None, items: EntityColumns, length: int) -> EntityColumns:
    """Coded columns of the users, and what they did before the log."""
    user_ids = integers(column(table, "user_id"))
    columns: dict[str, Column] = {}
    for name in table.column_names:
        if name == "user_active_degree" or name.endswith("_range"):
            columns[name] = codes(texts(table[name]), unknown=("", "UNKNOWN"))
        elif name.startswith("onehot_feat"):
            columns[name] = shifted(table[name])
        elif name.startswith("is_"):
            columns[name] = flags(table[name])
    return EntityColumns(user_ids, columns | _history_columns(user_ids, history, items, length))


def _history_columns(
    user_ids: Ids, history: pa.Table | None, items: EntityColumns, length: int
) -> dict[str, Column]:
    """What these users did before the log, in their order."""
    before = _history_by_user(history, length)
    rows_N = before.rows(user_ids)
    columns = {name: before.at(name, rows_N) for name in HISTORY_NUMBERS}
    for what in HISTORIES:
        recent = before.lists(what, rows_N)
        videos_T = items.rows(recent.values_T)
        columns[what] = recent
        columns[f"{what}_authors"] = Ragged(items.values("author", videos_T), recent.lengths_N)
        columns[f"{what}_tags"] = Ragged(items.values("first_tag", videos_T), recent.lengths_N)
    return columns


def _history_by_user(history: pa.Table | None, length: int) -> EntityColumns:
    """Lists and numbers of who has a history; nobody where there is no table."""
    if history is None:
        none = np.zeros(0, dtype=np.int64)
        empty: dict[str, Column] = dict.fromkeys(HISTORIES, Ragged(none, none))
        return EntityColumns(none, empty | dict.fromkeys(HISTORY_NUMBERS, none))
    watched_N = integers(column(history, "history_len"))
    likes_N = integers(pc.list_value_length(column(history, "like_seq")))
    long_N = integers(pc.list_value_length(column(history, "long_watch_seq")))
    numbers = {
        "history_log2": np.log2(watched_N + 1),
        "likes_log2": np.log2(likes_N + 1),
        "history_half_log2": 2 * np.log2(watched_N + 1),
        "long_half_log2": 2 * np.log2(long_N + 1),
        "long_rate": 1 + 10 * long_N / np.clip(watched_N, 1, LISTED_AT_MOST),
    }
    lists: dict[str, Column] = {
        what: last_of_each(column(history, name), length) for what, name in HISTORIES.items()
    }
    # Counts are whole and not negative, so cutting off the fraction is the floor.
    whole = {name: number_N.astype(np.int64) for name, number_N in numbers.items()}
    return EntityColumns(integers(column(history, "user_id")), lists | whole)
