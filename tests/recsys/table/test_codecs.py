"""Packed rows: what comes back against the stated bounds, other libraries and bytes worked out by hand."""

import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.errors import ConfigError, GradientError, ShapeError
from recsys.table.codecs import (
    BF16,
    FP16,
    FP32,
    KINDS,
    Int4Row,
    Int8Row,
    OneBit,
    codec_bytes,
    decode,
    encode,
    error_bound,
)

NEAREST = [FP32(), FP16(), BF16(), Int8Row(), Int4Row(), OneBit(amplitude=0.05)]
STOCHASTIC = [FP16(rounding="stochastic"), BF16(rounding="stochastic")]
CODECS = NEAREST + STOCHASTIC
LARGEST = float(np.finfo(np.float32).max)
BEYOND_HALF = 70_000.0
DIMS = st.sampled_from([1, 2, 3, 8, 15, 16, 17, 64])
# Magnitudes of their own: a row of everyday numbers must be as likely as one of subnormals.
NUMBERS = st.one_of(
    st.floats(-1, 1, width=32),
    st.floats(-BEYOND_HALF, BEYOND_HALF, width=32),
    st.floats(-(2.0**-120), 2.0**-120, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
ROWS = st.tuples(st.integers(1, 3), DIMS).flatmap(
    lambda shape: arrays(np.float32, shape, elements=NUMBERS, fill=st.nothing())
)
HALVES = arrays(np.uint16, st.tuples(st.integers(1, 3), DIMS), elements=st.integers(0, 2**16 - 1))
BRIEFLY = settings(deadline=None, max_examples=60)


def streams(x_ND, first=0):
    return np.arange(first, first + len(x_ND), dtype=np.uint64)


def kept(codec, x_ND, first_stream=0):
    return decode(codec, encode(codec, x_ND, streams(x_ND, first_stream)), x_ND.shape[1])


def row(*numbers):
    return np.array([numbers], dtype=np.float32)


@BRIEFLY
@given(ROWS, st.sampled_from(CODECS))
def test_every_weight_comes_back_within_its_stated_bound(x_ND, codec):
    error_ND = np.abs(kept(codec, x_ND).astype(np.float64) - x_ND.astype(np.float64))
    assert (error_ND <= error_bound(codec, x_ND)).all()


@BRIEFLY
@given(ROWS, st.sampled_from(CODECS))
def test_a_row_fills_exactly_its_bytes(x_ND, codec):
    packed_NB = encode(codec, x_ND, streams(x_ND))
    assert packed_NB.dtype == np.uint8
    assert packed_NB.shape == (len(x_ND), codec_bytes(codec, x_ND.shape[1]))


@BRIEFLY
@given(ROWS, st.sampled_from([FP32(), FP16(), BF16(), OneBit(amplitude=0.05), *STOCHASTIC]))
def test_encoding_what_was_decoded_gives_the_same_bytes(x_ND, codec):
    packed_NB = encode(codec, x_ND, streams(x_ND))
    again_NB = encode(codec, decode(codec, packed_NB, x_ND.shape[1]), streams(x_ND, first=99))
    np.testing.assert_array_equal(again_NB, packed_NB)


@BRIEFLY
@given(ROWS, st.sampled_from([Int8Row(), Int4Row()]))
def test_encoding_a_decoded_row_gives_the_same_levels_and_a_scale_within_one_ulp(x_ND, codec):
    packed_NB = encode(codec, x_ND)
    again_NB = encode(codec, decode(codec, packed_NB, x_ND.shape[1]))
    np.testing.assert_array_equal(again_NB[:, 4:], packed_NB[:, 4:])
    scale_N1, again_N1 = (b[:, :4].copy().view(np.int32) for b in (packed_NB, again_NB))
    assert np.abs(scale_N1 - again_N1).max() <= 1


@BRIEFLY
@given(arrays(np.float32, (2, 5), elements=st.floats(-65504, 65504, width=32)))
def test_halves_are_those_of_the_standard_library(x_ND):
    assert encode(FP16(), x_ND).tobytes() == struct.pack("<10e", *x_ND.ravel().tolist())


@BRIEFLY
@given(arrays(np.float32, (2, 5), elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_brain_floats_are_those_of_torch(x_ND):
    want_ND = torch.from_numpy(x_ND).to(torch.bfloat16).view(torch.int16).numpy()
    assert encode(BF16(), x_ND).tobytes() == want_ND.tobytes()


@pytest.mark.parametrize(
    ("codec", "kind"), [(FP16(rounding="stochastic"), torch.float16), (STOCHASTIC[1], torch.bfloat16)]
)
@BRIEFLY
@given(bits_ND=HALVES, fraction=st.floats(0, 1))
def test_a_draw_chooses_one_of_the_two_neighbours(codec, kind, bits_ND, fraction):
    grid_ND = torch.from_numpy(bits_ND.view(np.int16)).view(kind).float().numpy()
    next_ND = torch.from_numpy((bits_ND ^ 1).view(np.int16)).view(kind).float().numpy()
    usual_ND = np.isfinite(grid_ND) & np.isfinite(next_ND)
    low_ND, high_ND = (np.where(usual_ND, pick(grid_ND, next_ND), 0) for pick in (np.minimum, np.maximum))
    x_ND = (low_ND + np.float32(fraction) * (high_ND - low_ND)).astype(np.float32)
    got_ND = kept(codec, x_ND)
    assert ((got_ND == low_ND) | (got_ND == high_ND)).all()


@pytest.mark.parametrize(
    ("codec", "low", "high"),
    [
        (FP16(rounding="stochastic"), 0.5, 0.5 + 2**-11),
        (FP16(rounding="stochastic"), -3 * 2**-24, -2 * 2**-24),  # subnormal
        (BF16(rounding="stochastic"), 1.0, 1.0 + 2**-7),
    ],
)
@pytest.mark.parametrize("fraction", [0.125, 0.5, 0.75])
def test_the_mean_of_many_draws_is_the_weight(codec, low, high, fraction):
    n_draws = 40_000
    got_N = kept(codec, np.full((n_draws // 8, 8), low + fraction * (high - low), dtype=np.float32)).ravel()
    share = (got_N == np.float32(high)).mean()
    assert set(got_N.tolist()) == {low, high}
    assert abs(share - fraction) < 4.5 * np.sqrt(fraction * (1 - fraction) / n_draws)


@pytest.mark.parametrize(("codec", "step"), [(STOCHASTIC[0], 2**-10), (STOCHASTIC[1], 2**-7)])
def test_the_lowest_draw_moves_all_but_what_is_on_the_grid(codec, step):
    stream_of_hash_zero = 2**64 - 0x9E3779B97F4A7C15
    assert kept(codec, row(1.0), stream_of_hash_zero).item() == 1.0
    assert kept(codec, row(1.0 + 2**-23), stream_of_hash_zero).item() == 1.0 + step


def test_a_draw_hangs_on_its_stream_and_column_alone():
    codec, x_ND = FP16(rounding="stochastic"), np.full((1, 64), 1 + 2**-11, dtype=np.float32)
    np.testing.assert_array_equal(kept(codec, x_ND), kept(codec, x_ND))
    np.testing.assert_array_equal(kept(codec, x_ND)[:, :5], kept(codec, x_ND[:, :5]))
    assert not np.array_equal(kept(codec, x_ND), kept(codec, x_ND, first_stream=1))


@pytest.mark.parametrize(
    ("codec", "ties", "even"),
    [(FP16(), [2049, 2051, 2**-25], [2048, 2052, 0]), (BF16(), [257, 259, 2**-134], [256, 260, 0])],
)
def test_ties_go_to_the_even_neighbour(codec, ties, even):
    assert kept(codec, row(*ties))[0].tolist() == even


def test_row_levels_are_packed_behind_their_scale():
    one = struct.pack("<f", 1.0)
    assert encode(Int8Row(), row(127, 0.5, 1.5, -2.5, -127)).tobytes() == one + bytes([127, 0, 2, 254, 129])
    assert encode(Int4Row(), row(7, -7, 1.5, -0.5, -1)).tobytes() == one + bytes([0x97, 0x02, 0x0F])


def test_one_bit_counts_from_the_lowest_and_takes_zero_for_minus():
    packed_NB = encode(OneBit(amplitude=0.5), row(1, -1, 0, 2, -2, -3, -4, 5, 1e-45))
    assert packed_NB.tobytes() == bytes([0b1000_1001, 0b1])
    assert decode(OneBit(amplitude=0.5), packed_NB, 9).tolist() == [
        [0.5, -0.5, -0.5, 0.5, -0.5, -0.5, -0.5, 0.5, 0.5]
    ]


@pytest.mark.parametrize(("codec", "levels"), [(Int8Row(), 127), (Int4Row(), 7)])
def test_weights_half_way_between_levels_stay_within_the_bound(codec, levels):
    largest_N1 = np.random.default_rng(0).uniform(1, 2, (2000, 1))
    x_ND = np.hstack([largest_N1, largest_N1 * (np.arange(levels) + 0.5) / levels]).astype(np.float32)
    error_ND = np.abs(kept(codec, x_ND).astype(np.float64) - x_ND.astype(np.float64))
    assert (error_ND <= error_bound(codec, x_ND)).all()


@pytest.mark.parametrize("codec", [Int8Row(), Int4Row()])
def test_a_row_too_small_for_a_scale_is_all_zeros(codec):
    assert not encode(codec, row(0, -0.0, 2.0**-126, -(2.0**-149))).any()


@pytest.mark.parametrize("infinite", [LARGEST, np.inf])
@pytest.mark.parametrize(
    ("codec", "largest"), [(FP16(), 65504.0), (STOCHASTIC[0], 65504.0), (BF16(), 2.0**128 - 2.0**120)]
)
def test_what_a_floating_format_cannot_hold_becomes_its_largest(codec, largest, infinite):
    assert kept(codec, row(infinite, -infinite)).tolist() == [[largest, -largest]]


@pytest.mark.parametrize("codec", [Int8Row(), Int4Row()])
def test_an_infinity_counts_as_the_largest_float32(codec):
    x_ND = row(np.inf, -np.inf, 1e38)
    assert encode(codec, x_ND).tobytes() == encode(codec, row(LARGEST, -LARGEST, 1e38)).tobytes()
    assert kept(codec, x_ND)[0, :2].tolist() == pytest.approx([LARGEST, -LARGEST], rel=2e-7)
    assert np.isinf(error_bound(codec, x_ND)).tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("codec", "bound"),
    [(FP32(), 0), (FP16(), 2**-11), (BF16(), 2**-8), (Int8Row(), 1 / 254), (Int4Row(), 1 / 14)],
)
def test_the_bound_of_a_weight_of_one_is_half_a_step(codec, bound):
    assert error_bound(codec, row(1.0, -1.0))[0] == pytest.approx([bound, bound], rel=1e-4)


@pytest.mark.parametrize("codec", CODECS)
def test_a_nan_is_refused_and_named(codec):
    with pytest.raises(GradientError, match="row 1, column 2 is NaN"):
        encode(codec, np.array([[0, 0, 0], [0, 0, np.nan]], dtype=np.float32), np.zeros(2, np.uint64))


def test_rows_of_another_shape_or_dtype_are_refused():
    with pytest.raises(ShapeError, match=r"want rows float32 \(N, D\), got float32 \(3,\)"):
        encode(FP32(), np.zeros(3, np.float32))
    with pytest.raises(ShapeError, match="got float64"):
        encode(FP32(), np.zeros((1, 3)))
    with pytest.raises(ShapeError, match=r"want uint8 \(N, 6\) for 3 columns of FP16.*got uint8 \(1, 5\)"):
        decode(FP16(), np.zeros((1, 5), np.uint8), 3)


@pytest.mark.parametrize("wrong", [None, np.zeros(3, np.uint64), np.zeros(1, np.int64)])
def test_stochastic_rounding_wants_one_stream_for_each_row(wrong):
    with pytest.raises(ShapeError, match=r"wants streams uint64 \(1,\), got"):
        encode(BF16(rounding="stochastic"), row(1.0), wrong)


@pytest.mark.parametrize("amplitude", [0.0, -1.0, float("nan"), 1e39, 1e-40])
def test_an_amplitude_that_float32_cannot_hold_is_refused(amplitude):
    with pytest.raises(ConfigError, match="amplitude must be > 0"):
        OneBit(amplitude=amplitude)


@pytest.mark.parametrize("kind", [FP16, BF16])
def test_an_unknown_rounding_is_refused(kind):
    with pytest.raises(ConfigError, match="rounding must be 'nearest' or 'stochastic', got 'up'"):
        kind(rounding="up")


def test_every_codec_has_a_name_in_json():
    assert set(KINDS.values()) == {type(codec) for codec in CODECS}
