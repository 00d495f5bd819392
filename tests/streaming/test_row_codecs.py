"""A row comes off the wire as its codec promises, slice by slice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys.errors import ConfigError, GradientError, ShapeError
from recsys.table import Adagrad, SliceSpec, TableSpec, Zeros
from streaming.row_codecs import CODECS, RowCodec

DIMS = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)
NAMES = st.sampled_from(sorted(CODECS))
WEIGHTS = st.floats(-1e4, 1e4, width=32)


@st.composite
def coded_rows(draw):
    codec = RowCodec(draw(NAMES), draw(DIMS))
    shape = (draw(st.integers(0, 6)), sum(codec.dims))
    return codec, draw(hnp.arrays(np.float32, shape, elements=WEIGHTS))


@given(coded_rows())
def test_a_row_is_off_by_no_more_than_its_codec_allows(coded):
    codec, rows_ND = coded
    packed_NB = codec.pack(rows_ND)
    assert packed_NB.shape == (len(rows_ND), codec.row_bytes)
    served_ND, begin = codec.unpack(packed_NB), 0
    assert served_ND.shape == rows_ND.shape
    for dim in codec.dims:
        part_ND, got_ND = rows_ND[:, begin : begin + dim], served_ND[:, begin : begin + dim]
        largest_N1 = np.abs(part_ND).max(axis=1, keepdims=True, initial=0)
        bound = {
            "fp32": np.zeros_like(part_ND),
            "fp16": np.maximum(np.abs(part_ND) * 2.0**-11, 2.0**-25),
            # Half a step, a little rounding, and what is too small to have a step.
            "int8_row": largest_N1 / 127 * 0.5001 + 2.0**-119,
        }["fp32" if codec.name == "int8_row" and dim == 1 else codec.name]
        assert (np.abs(got_ND - part_ND) <= bound).all()
        begin += dim


@given(coded_rows())
def test_rows_do_not_depend_on_their_neighbours(coded):
    codec, rows_ND = coded
    one_by_one = [codec.pack(rows_ND[i : i + 1]).tobytes() for i in range(len(rows_ND))]
    assert codec.pack(rows_ND).tobytes() == b"".join(one_by_one)
    assert codec.as_served(rows_ND).tobytes() == codec.unpack(codec.pack(rows_ND)).tobytes()


def test_a_large_wide_weight_does_not_cost_the_vector_its_precision():
    rows_ND = np.array([[50.0, 0.01, -0.02]], np.float32)
    assert RowCodec("int8_row", (3,)).as_served(rows_ND)[0, 1] == 0.0
    np.testing.assert_allclose(RowCodec("int8_row", (1, 2)).as_served(rows_ND), rows_ND, rtol=0.01)


def test_the_slices_come_from_the_spec():
    parts = [
        SliceSpec(name=f"s{dim}", dim=dim, optimizer=Adagrad(learning_rate=1.0), initializer=Zeros())
        for dim in (1, 8)
    ]
    spec = TableSpec(name="rows", slices=tuple(parts))
    sizes = {name: RowCodec.of(name, spec).row_bytes for name in CODECS}
    wanted = {"fp32": 36, "fp16": 18, "int8_row": 4 + 8 + 4}
    assert sizes == wanted, "one weight and its scale would be longer than fp32"


def test_an_fp32_row_keeps_every_bit_even_of_a_nan():
    rows_ND = np.array([[0x7FC00001, 0x80000000]], np.uint32).view(np.float32)
    assert RowCodec("fp32", (2,)).as_served(rows_ND).tobytes() == rows_ND.tobytes()
    with pytest.raises(GradientError):
        RowCodec("int8_row", (2,)).pack(rows_ND)


def test_rows_of_another_shape_and_unknown_codecs_are_refused():
    codec = RowCodec("int8_row", (1, 2))
    with pytest.raises(ShapeError, match=r"want rows float32 \(N, 3\), got float32 \(1, 2\)"):
        codec.pack(np.zeros((1, 2), np.float32))
    with pytest.raises(ShapeError, match=r"want int8_row rows uint8 \(N, 10\), got uint8 \(1, 12\)"):
        codec.unpack(np.zeros((1, 12), np.uint8))
    with pytest.raises(ConfigError, match="must be one of"):
        RowCodec("bf16", (1,))
