import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import KeyRangeError
from recsys.keys import MAX_FEATURE, VALUE_BITS, hash_string, pack, unpack

FEATURES = st.integers(0, MAX_FEATURE)


@st.composite
def crosses(draw):
    """(widths, rows) of a cross that fits: every id below 2 ** width."""
    bits = draw(
        st.lists(st.integers(1, VALUE_BITS), min_size=1, max_size=5).filter(lambda b: sum(b) <= VALUE_BITS)
    )
    row = st.tuples(*(st.integers(0, 2**width - 1) for width in bits))
    return bits, draw(st.lists(row, max_size=20))


def columns_of(rows, n_columns):
    return [np.array([row[place] for row in rows], dtype=np.int64) for place in range(n_columns)]


@given(FEATURES, crosses())
def test_a_key_is_the_feature_and_its_ids_written_side_by_side_in_binary(feature, cross):
    bits, rows = cross
    written = [
        int(
            f"{feature:012b}"
            + "".join(f"{i:0{w}b}" for i, w in zip(row, bits, strict=True)).zfill(VALUE_BITS),
            2,
        )
        for row in rows
    ]
    assert pack(feature, columns_of(rows, len(bits)), bits).tolist() == written


@given(FEATURES, crosses())
def test_different_ids_never_share_a_key(feature, cross):
    bits, rows = cross
    keys = pack(feature, columns_of(rows, len(bits)), bits).tolist()
    assert len(set(keys)) == len(set(rows))


@given(FEATURES, st.integers(0, 2**VALUE_BITS - 1))
def test_unpacking_gives_back_the_feature_and_the_value(feature, value):
    (key,) = pack(feature, [np.array([value])], [VALUE_BITS])
    assert unpack(int(key)) == (feature, value)


@given(crosses(), st.data())
def test_an_id_that_does_not_fit_is_refused_and_named(cross, data):
    bits, rows = cross
    place = data.draw(st.integers(0, len(bits) - 1))
    bad = data.draw(st.one_of(st.integers(2 ** bits[place], 2**62), st.integers(-(2**62), -1)))
    columns = columns_of([*rows, tuple(0 for _ in bits)], len(bits))
    columns[place][-1] = bad
    with pytest.raises(KeyRangeError, match=f"id {bad} does not fit {bits[place]} bits"):
        pack(1, columns, bits)


@given(FEATURES, st.text())
def test_a_string_hashes_to_64_bits_of_keyed_blake2b(feature, text):
    digest = hashlib.blake2b(
        text.encode(), digest_size=8, key=bytes([feature % 256, feature // 256])
    ).digest()
    assert hash_string(feature, text) == sum(byte << 8 * place for place, byte in enumerate(digest))


def test_the_same_string_under_two_features_has_two_keys():
    assert hash_string(1, "rock") != hash_string(2, "rock")
