from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.datasets.log import Dataset, InteractionLog
from feature_store.datasets.requests import PlaybackConfig, group_requests, mixed, play_requests
from feature_store.entities import EntityColumns
from recsys.errors import ConfigError
from recsys.features import Feature, FeatureSchema
from recsys.keys import hash_string

SCHEMA = FeatureSchema(
    (
        Feature(name="user", number=1, columns=("user.id",), bits=(8,)),
        Feature(name="item x tab", number=2, columns=("item.id", "request.domain"), bits=(8, 4)),
    )
)
NOBODY = EntityColumns(np.zeros(0, dtype=np.uint64), {})
DELAY_MS = 500
# Few users, items and moments, so that pages and repeats are common. Rows: user, item, time, tab, value.
ROWS = st.lists(
    st.tuples(
        st.integers(1, 2),
        st.integers(1, 6),
        st.integers(0, 2),
        st.integers(0, 1),
        st.sampled_from([None, 1.0, 4.0]),
    ),
    max_size=30,
)


def dataset_of(rows, *kinds):
    """Rows hold one value per kind, after the first four columns."""
    user, item, time, tab, *values = zip(*rows, strict=True) if rows else ((),) * (4 + len(kinds))
    log = InteractionLog.in_time_order(
        feedback_kinds=kinds,
        domains=("", "home"),
        user_id_N=np.array(user, dtype=np.uint64),
        item_id_N=np.array(item, dtype=np.uint64),
        event_time_ms_N=np.array(time, dtype=np.int64),
        domain_index_N=np.array(tab, dtype=np.int64),
        value_NK=np.array(values, dtype=np.float64).T,
        delay_ms_N=np.full(len(rows), DELAY_MS),
    )
    return Dataset(name="tiny", log=log, users=NOBODY, items=NOBODY)


def played(rows, kind="click", **settings):
    return list(play_requests(dataset_of(rows, kind), SCHEMA, PlaybackConfig(**settings)))


def told(messages):
    """Each request's id and its feedback, in order."""
    return [(impression.request_id, feedback) for impression, feedback in messages]


def shown(messages):
    """(user, item, time, tab) of every shown item, in order."""
    return [
        (impression.user_id, int(item), impression.event_time_ms, ("", "home").index(impression.domain))
        for impression, _ in messages
        for item in impression.item_ids_K
    ]


@given(ROWS)
def test_every_row_is_shown_once_and_every_value_is_told_once(rows):
    messages = played(rows)
    told = Counter(
        (f.user_id, f.item_id, f.event_time_ms - DELAY_MS, f.value)
        for _, feedback in messages
        for f in feedback
    )
    assert Counter(shown(messages)) == Counter(row[:4] for row in rows)
    assert told == Counter((u, i, t, value) for u, i, t, _, value in rows if value is not None)


@given(ROWS, st.integers(1, 4))
def test_a_repeated_row_is_sent_again_under_the_ids_of_the_first(rows, page):
    seen = {}
    for impression, _ in played(rows, items_per_request=page):
        for item in impression.item_ids_K:
            row = (impression.user_id, int(item), impression.event_time_ms, impression.domain)
            assert seen.setdefault(row, impression.request_id) == impression.request_id
        assert len(set(impression.item_ids_K.tolist())) == len(impression.item_ids_K)


@given(ROWS)
def test_feedback_shares_an_event_id_exactly_when_its_rows_are_equal(rows):
    ids = {}
    for impression, feedback in played(rows):
        for one in feedback:
            row = (one.user_id, one.item_id, impression.event_time_ms, impression.domain, one.value)
            assert ids.setdefault(row, one.event_id) == one.event_id
            assert one.request_id == impression.request_id
            assert one.item_id in impression.item_ids_K
    assert len(set(ids.values())) == len(ids)


@given(ROWS, st.integers(1, 4))
def test_a_moment_takes_as_few_requests_as_its_distinct_items_fill(rows, page):
    moments = {}
    for impression, _ in played(rows, items_per_request=page):
        moment = (impression.user_id, impression.event_time_ms, impression.domain)
        moments.setdefault(moment, set()).add(impression.request_id)
        assert len(impression.item_ids_K) <= page
    distinct = Counter((u, t, ("", "home")[tab]) for u, _, t, tab in {row[:4] for row in rows})
    assert {moment: len(ids) for moment, ids in moments.items()} == {
        moment: -(-count // page) for moment, count in distinct.items()
    }


@given(ROWS)
def test_impressions_come_in_time_order(rows):
    times = [impression.event_time_ms for impression, _ in played(rows)]
    assert times == sorted(times)


@given(ROWS, st.integers(1, 5))
def test_the_size_of_a_chunk_changes_nothing(rows, rows_per_chunk):
    whole, cut = played(rows), played(rows, rows_per_chunk=rows_per_chunk)
    assert shown(whole) == shown(cut)
    for (one, told), (other, told_again) in zip(whole, cut, strict=True):
        assert (one.request_id, told) == (other.request_id, told_again)
        assert one.keys.keys_T.tolist() == other.keys.keys_T.tolist()


@given(ROWS)
def test_each_row_carries_its_own_keys(rows):
    for impression, _ in played(rows):
        tab = ("", "home").index(impression.domain)
        by_hand = [
            key
            for item in impression.item_ids_K.tolist()
            for key in (1 << 52 | impression.user_id, 2 << 52 | item << 4 | tab)
        ]
        assert impression.keys.keys_T.tolist() == by_hand
        assert impression.schema_fingerprint == SCHEMA.fingerprint


@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_a_log_of_two_kinds_tells_what_a_log_of_each_tells(rows, random, rows_per_chunk):
    rated = [(*row, random.choice([None, 1.0, 5.0])) for row in rows]
    both = dataset_of(rated, "click", "rating")
    together = told(play_requests(both, SCHEMA, PlaybackConfig(rows_per_chunk=rows_per_chunk)))
    apart = [
        told(played([row[:5] for row in rated], "click")),
        told(played([row[:4] + row[5:] for row in rated], "rating")),
    ]
    for (request_id, feedback), *single in zip(together, *apart, strict=True):
        assert {request_id} == {of_one for of_one, _ in single}
        by_kind = [[one for one in feedback if one.kind == kind] for kind in ("click", "rating")]
        assert by_kind == [one for _, one in single]
        assert len(feedback) == sum(map(len, by_kind))


def test_kinds_of_feedback_to_one_row_are_events_of_their_own_in_the_order_of_the_kinds():
    row = (1, 2, 3, 0, 1.0, None, 1.0)
    ((_, feedback),) = play_requests(dataset_of([row], "click", "hate", "like"), SCHEMA)
    assert [one.kind for one in feedback] == ["click", "like"]
    click, like = feedback
    assert click.request_id == like.request_id
    assert click.event_id != like.event_id


def splitmix(row, salt):
    """SplitMix64's finaliser in plain integers, column by column."""
    state, wrap = salt, 2**64
    for value in row:
        state = (state * 0x9E3779B97F4A7C15 + value + 1) % wrap
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % wrap
        state = (state ^ state >> 27) * 0x94D049BB133111EB % wrap
        state ^= state >> 31
    return state


@given(st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 3), max_size=5), st.integers(0, 2**64 - 1))
def test_hashes_equal_the_same_arithmetic_on_plain_integers(rows, salt):
    columns = [np.array([row[place] for row in rows], dtype=np.uint64) for place in range(3)]
    assert mixed(columns, salt).tolist() == [splitmix(row, salt) for row in rows]


def test_ids_say_who_where_when_and_what_was_done_the_same_on_every_machine():
    impression, (feedback,) = played([(1, 2, 3, 1, 1.0)])[0]
    page, tab, user, time, item, one_as_bits = 0, 1, 1, 3, 2, 0x3FF0_0000_0000_0000
    request = splitmix((page, tab, user, time), 0x5EED_0001)
    assert impression.request_id == f"{request:016x}" == "2bd64ae5c698ebe2"
    assert feedback.event_id == splitmix((request, item, one_as_bits, DELAY_MS), hash_string(0, "click"))


def test_what_these_logs_do_not_tell_is_nan():
    ((impression, _),) = played([(1, 2, 3, 0, None)])
    assert np.isnan(impression.scores_K).all()
    assert np.isnan(impression.propensities_K).all()


def test_a_million_requests_share_no_id():
    n = 1_000_000
    rows = np.arange(n)
    log = InteractionLog.in_time_order(
        feedback_kinds=("click",),
        user_id_N=rows % 1_000,
        item_id_N=rows,
        event_time_ms_N=rows // 1_000,
        domain_index_N=np.zeros(n),
        value_NK=np.ones((n, 1)),
        delay_ms_N=np.zeros(n),
    )
    groups = group_requests(log, 20)
    assert len(np.unique(groups.request_hash_R)) == n
    assert len(np.unique(groups.event_hash_NK)) == n


@pytest.mark.parametrize(
    "settings", [{"items_per_request": 0}, {"items_per_request": 256}, {"rows_per_chunk": 0}]
)
def test_a_playback_that_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError, match="must be"):
        PlaybackConfig(**settings)
