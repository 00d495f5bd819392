import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError, KeyRangeError, ShapeError
from recsys.features import Feature, FeatureSchema, Ragged, RaggedKeys

SMALL = st.integers(0, 15)
LISTS = st.lists(st.lists(SMALL, max_size=4), max_size=8)
NAMES = ("user.id", "item.id", "item.genres", "user.liked")
MULTI_VALUED = {"item.genres", "user.liked"}


def ragged(lists):
    flat = [value for values in lists for value in values]
    return Ragged(np.array(flat, dtype=np.int64), np.array([len(values) for values in lists], dtype=np.int64))


def feature(number, *columns, bits=None):
    return Feature(name="x".join(columns), number=number, columns=columns, bits=bits or (4,) * len(columns))


@st.composite
def encodings(draw):
    """(schema, rows): rows map a column's name to its list of values."""
    crosses = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).filter(
        lambda names: len(MULTI_VALUED & set(names)) <= 1
    )
    chosen = draw(st.lists(crosses, min_size=1, max_size=4, unique_by=tuple))
    one, many = st.lists(SMALL, min_size=1, max_size=1), st.lists(SMALL, max_size=3)
    row = st.fixed_dictionaries({name: many if name in MULTI_VALUED else one for name in NAMES})
    schema = FeatureSchema(tuple(feature(number, *names) for number, names in enumerate(chosen)))
    return schema, draw(st.lists(row, max_size=6))


def columns_of(rows):
    single = {name: np.array([row[name][0] for row in rows], dtype=np.int64) for name in NAMES[:2]}
    return single | {name: ragged([row[name] for row in rows]) for name in MULTI_VALUED}


def keys_by_hand(schema, row):
    """Per feature the list of keys of one row: every combination, nibble by nibble."""
    per_feature = []
    for each in schema.features:
        values = [0]
        for name in each.columns:
            values = [value << 4 | entry for value in values for entry in row[name]]
        per_feature.append([each.number << 52 | value for value in values])
    return per_feature


@given(encodings())
def test_keys_equal_those_of_a_plain_loop_over_rows_and_features(encoding):
    schema, rows = encoding
    keys = schema.encode(columns_of(rows), len(rows))
    by_hand = [keys_by_hand(schema, row) for row in rows]
    assert keys.keys_T.tolist() == [key for row in by_hand for one in row for key in one]
    assert keys.lengths_NF.tolist() == [[len(one) for one in row] for row in by_hand]


@given(encodings())
def test_feature_major_order_lists_every_row_of_a_feature_before_the_next(encoding):
    schema, rows = encoding
    flat, lengths = schema.encode(columns_of(rows), len(rows)).feature_major()
    by_hand = [keys_by_hand(schema, row) for row in rows]
    in_order = [row[place] for place in range(len(schema.features)) for row in by_hand]
    assert flat.tolist() == [key for one in in_order for key in one]
    assert lengths.tolist() == [len(one) for one in in_order]


@given(encodings())
def test_offsets_cut_the_keys_into_rows(encoding):
    schema, rows = encoding
    keys = schema.encode(columns_of(rows), len(rows))
    cut = [keys.keys_T[a:b].tolist() for a, b in zip(keys.offsets, keys.offsets[1:], strict=False)]
    assert cut == [[key for one in keys_by_hand(schema, row) for key in one] for row in rows]


@given(encodings(), st.integers(0, 6))
def test_rows_encoded_apart_and_concatenated_equal_rows_encoded_together(encoding, cut):
    schema, rows = encoding
    parts = [schema.encode(columns_of(part), len(part)) for part in (rows[:cut], rows[cut:])]
    whole = schema.encode(columns_of(rows), len(rows))
    joined = RaggedKeys.concatenate(parts)
    assert joined.keys_T.tolist() == whole.keys_T.tolist()
    assert joined.lengths_NF.tolist() == whole.lengths_NF.tolist()


@given(LISTS, st.data())
def test_taking_rows_of_a_list_column_equals_indexing_a_list_of_lists(lists, data):
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=8)) if lists else []
    taken = ragged(lists).take(np.array(rows, dtype=np.int64))
    assert taken.values_T.tolist() == [value for row in rows for value in lists[row]]
    assert taken.lengths_N.tolist() == [len(lists[row]) for row in rows]


@pytest.mark.parametrize(
    "other",
    [
        feature(1, "user.id"),
        feature(0, "item.id"),
        feature(0, "user.id", bits=(5,)),
        Feature(name="renamed", number=0, columns=("user.id",), bits=(4,)),
    ],
)
def test_the_fingerprint_differs_when_anything_that_shapes_a_key_differs(other):
    schema = FeatureSchema((feature(0, "user.id"),))
    assert schema.fingerprint == FeatureSchema((feature(0, "user.id"),)).fingerprint
    assert schema.fingerprint != FeatureSchema((other,)).fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 4096}, "number must be 0 to 4095"),
        ({"number": -1}, "number must be 0 to 4095"),
        ({"columns": (), "bits": ()}, "one width per column"),
        ({"bits": (4, 4)}, "one width per column"),
        ({"bits": (0,)}, "widths must be 1 to 52"),
        ({"bits": (53,)}, "widths must be 1 to 52"),
    ],
)
def test_a_feature_that_cannot_be_packed_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Feature(**({"name": "f", "number": 0, "columns": ("user.id",), "bits": (4,)} | arguments))


def test_two_features_may_not_share_a_number():
    with pytest.raises(ConfigError, match="share a number"):
        FeatureSchema((feature(0, "user.id"), feature(0, "item.id")))


VIDEO = Feature(name="video", number=3, columns=("item.id",), bits=(8,))


def history(**changes):
    """A history that uses the rows of ``VIDEO``, but for what is changed."""
    settings = {"name": "seen", "number": 3, "columns": ("user.seen",), "bits": (8,), "rows_of": "video"}
    return Feature(**(settings | changes))


@given(st.lists(st.tuples(st.integers(0, 255), st.lists(st.integers(0, 255), max_size=4)), max_size=6))
def test_a_history_of_items_has_the_items_keys(rows):
    videos, seen = [video for video, _ in rows], [one for _, one in rows]
    columns = {"item.id": np.array(videos, dtype=np.int64), "user.seen": ragged(seen)}
    keys = FeatureSchema((history(), VIDEO)).encode(columns, len(rows))
    assert keys.keys_T.tolist() == [3 << 52 | value for video, one in rows for value in [*one, video]]


def test_schemas_without_shared_rows_keep_their_fingerprint():
    # As snapshots and servers already know it.
    assert FeatureSchema((VIDEO, feature(0, "user.id"))).fingerprint == 0x7F9B256CA79AA5EE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rows_of": "film"},
            r"rows_of must name a feature with rows of its own, one of \['video'\]; got 'film'",
        ),
        ({"rows_of": "seen"}, "rows_of must name a feature with rows of its own"),
        ({"number": 4}, r"want number 3 and widths \(8,\)"),
        ({"bits": (9,)}, r"want number 3 and widths \(8,\)"),
        ({"rows_of": None}, "share a number"),
        ({"name": "video"}, "share a name"),
    ],
    ids=str,
)
def test_a_history_whose_keys_would_not_be_the_items_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        FeatureSchema((VIDEO, history(**changes)))


def test_an_absent_column_is_named():
    with pytest.raises(ConfigError, match=r"needs column 'item\.id'"):
        FeatureSchema((feature(0, "item.id"),)).encode({"user.id": np.array([1])}, 1)


def test_a_cross_of_two_list_columns_is_refused():
    columns = {"item.genres": ragged([[1]]), "user.liked": ragged([[2]])}
    with pytest.raises(ConfigError, match="two multi-valued"):
        FeatureSchema((feature(0, "item.genres", "user.liked"),)).encode(columns, 1)


@pytest.mark.parametrize("lists", [[[1], [2]], [[1] * 256]])
def test_a_list_column_of_another_length_or_over_255_values_is_refused(lists):
    with pytest.raises(ShapeError, match="want 1 rows of at most 255 values"):
        FeatureSchema((feature(0, "item.genres"),)).encode({"item.genres": ragged(lists)}, 1)


def test_an_id_too_wide_for_its_feature_is_refused():
    with pytest.raises(KeyRangeError, match="id 16 does not fit 4 bits"):
        FeatureSchema((feature(0, "user.id"),)).encode({"user.id": np.array([16])}, 1)


def test_a_plain_column_of_another_length_is_refused():
    with pytest.raises(ShapeError):
        FeatureSchema((feature(0, "user.id"),)).encode({"user.id": np.array([1, 2])}, 1)
