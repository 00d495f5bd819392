import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.datasets.examples import examples_of
from feature_store.datasets.kuairand import load_kuairand
from feature_store.datasets.log import Dataset, InteractionLog
from feature_store.datasets.movielens import load_movielens
from feature_store.entities import EntityColumns
from recsys.errors import ConfigError, ShapeError
from recsys.features import Feature, FeatureSchema

SCHEMA = FeatureSchema(
    (
        Feature(name="user", number=1, columns=("user.id",), bits=(8,)),
        Feature(name="item x tab", number=2, columns=("item.id", "request.domain"), bits=(8, 4)),
    )
)
RECORDED = FeatureSchema(
    (
        Feature(name="user", number=1, columns=("user.id",), bits=(24,)),
        Feature(name="item", number=2, columns=("item.id",), bits=(24,)),
    )
)
NOBODY = EntityColumns(np.zeros(0, dtype=np.uint64), {})
KINDS, DOMAINS, DELAY_MS = ("click", "rating"), ("", "home"), 500
# Few users, items and moments, so that repeats are common. Rows: user, item, time, tab, click, rating.
ROWS = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.integers(1, 3),
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from([None, 1.0]),
        st.sampled_from([None, 0.0, 3.0, 4.0]),
    ),
    max_size=20,
)


def dataset_of(rows):
    user, item, time, tab, *values = zip(*rows, strict=True) if rows else ((),) * 6
    log = InteractionLog.in_time_order(
        feedback_kinds=KINDS,
        domains=DOMAINS,
        user_id_N=np.array(user, dtype=np.uint64),
        item_id_N=np.array(item, dtype=np.uint64),
        event_time_ms_N=np.array(time, dtype=np.int64),
        domain_index_N=np.array(tab, dtype=np.int64),
        value_NK=np.array(values, dtype=np.float64).T,
        delay_ms_N=np.full(len(rows), DELAY_MS),
    )
    return Dataset(name="tiny", log=log, users=NOBODY, items=NOBODY)


def said(batch):
    """(user, item, time, tab) of every example."""
    tabs = map(DOMAINS.index, batch.domain_B)
    columns = (column.tolist() for column in (batch.user_id_B, batch.item_id_B, batch.event_time_ms_B))
    return list(zip(*columns, tabs, strict=True))


def first_of_each(rows):
    """{(user, item, time, tab): (click, rating)} in time order, of equal rows the first."""
    first = {}
    for row in sorted(rows, key=lambda row: row[2]):
        first.setdefault(row[:4], row[4:])
    return first


@given(ROWS)
def test_each_showing_becomes_one_example_in_time_order(rows):
    batch, expected = examples_of(dataset_of(rows), SCHEMA), first_of_each(rows)
    assert said(batch) == list(expected)
    assert batch.label_names == KINDS
    assert batch.label_BL.tolist() == [
        [float(value is not None) for value in values] for values in expected.values()
    ]
    assert (batch.sample_rate_BL == 1).all()
    assert (batch.weight_B == 1).all()
    assert (batch.delay_ms_B == DELAY_MS).all()


@given(ROWS, st.sampled_from([-1.0, 0.0, 3.0, 3.5, 9.0]))
def test_a_value_below_its_threshold_is_no_positive_and_other_kinds_do_not_care(rows, at_least):
    batch = examples_of(dataset_of(rows), SCHEMA, at_least={"rating": at_least})
    assert batch.label_BL.tolist() == [
        [float(click is not None), float(rating is not None and rating >= at_least)]
        for click, rating in first_of_each(rows).values()
    ]


@given(ROWS)
def test_each_example_carries_its_own_keys(rows):
    batch = examples_of(dataset_of(rows), SCHEMA)
    by_hand = [
        key for user, item, _, tab in said(batch) for key in (1 << 52 | user, 2 << 52 | item << 4 | tab)
    ]
    assert batch.keys.keys_T.tolist() == by_hand
    assert batch.schema_fingerprint == SCHEMA.fingerprint


@given(ROWS, st.randoms(use_true_random=False))
def test_parts_of_a_log_share_no_example_and_hold_what_the_whole_holds(rows, random):
    dataset = dataset_of(rows)
    places = list(range(len(rows)))
    random.shuffle(places)
    cut = random.randint(0, len(rows))
    whole = examples_of(dataset, SCHEMA)
    for one, other in (
        (slice(cut), slice(cut, None)),
        (np.array(places[:cut], dtype=np.int64), np.array(places[cut:], dtype=np.int64)),
    ):
        parts = [examples_of(dataset, SCHEMA, rows=part) for part in (one, other)]
        assert sorted(said(parts[0]) + said(parts[1])) == sorted(said(whole))
        for part in parts:
            assert part.event_time_ms_B.tolist() == sorted(part.event_time_ms_B.tolist())


@given(ROWS)
def test_two_showings_never_share_an_example_id(rows):
    ids = examples_of(dataset_of(rows), SCHEMA).example_id_B
    assert len(set(ids.tolist())) == len(ids)


def test_a_threshold_for_a_kind_that_the_log_has_not_is_refused():
    with pytest.raises(ConfigError, match=r"at_least names \['like'\]"):
        examples_of(dataset_of([]), SCHEMA, at_least={"like": 1.0})


@pytest.mark.parametrize("rows", [np.array([1]), np.array([-1]), np.array([True]), np.array([0.0])])
def test_a_place_that_is_not_in_the_log_is_refused(rows):
    with pytest.raises(ShapeError, match="want places from 0 to 0"):
        examples_of(dataset_of([(1, 1, 0, 0, 1.0, None)]), SCHEMA, rows=rows)


def test_the_real_slice_becomes_as_many_examples_as_it_has_different_rows(recsys_data):
    table = pq.read_table(recsys_data / "kuairand_pure_standard_0425_0506.parquet").to_pandas()
    table = table.drop_duplicates(["user_id", "video_id", "time_ms", "tab"])
    batch = examples_of(load_kuairand(recsys_data, labels=("is_click", "long_view")), RECORDED)
    assert batch.label_BL.sum(axis=0).tolist() == [table.is_click.sum(), table.long_view.sum()]
    assert batch.domain_B == table.tab.astype(str).tolist()
    assert len(set(batch.example_id_B.tolist())) == len(table) == 193_583


def test_a_million_ratings_become_examples_with_four_stars_as_positives(movielens_cache):
    dataset = load_movielens(None, movielens_cache)
    batch = examples_of(dataset, RECORDED, at_least={"rating": 4})
    # GroupLens' own counts of ml-1m: 348,971 ratings of four stars, 226,310 of five.
    assert (len(batch), int(batch.label_B.sum())) == (1_000_209, 348_971 + 226_310)
