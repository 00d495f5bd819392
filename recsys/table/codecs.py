"""Packed forms of a row's weights, for serving, the wire and snapshots: what each stores and loses.

A row is packed by itself and little-endian. Row codecs store a float32 scale, then integers in two's
complement; ``cpp/codecs.h`` writes the same bytes. What a floating format cannot hold becomes its
largest finite number; row codecs take an infinity for the largest float32.

Axes: N rows, D columns of one slice, B bytes of a packed row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, GradientError, ShapeError
from recsys.hashing import mix64_each

Floats = NDArray[np.float32]
Bounds = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Streams = NDArray[np.uint64]
Bits = NDArray[np.uint32]
Rounding = Literal["nearest", "stochastic"]

_LARGEST = float(np.finfo(np.float32).max)
_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST_HALF = np.float32(65504.0)
_LARGEST_BRAIN = 0x7F7F
# Of each row codec, by its levels on either side of 0: the largest scale whose outermost level is finite.
_LARGEST_SCALE = {127: float.fromhex("0x1.020406p121"), 7: float.fromhex("0x1.249248p125")}


@dataclass(frozen=True, slots=True, kw_only=True)
class FP32:
    """The weights as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FP16:
    """IEEE half: 11 significant bits, up to 65504, in steps of 2**-24 near 0."""

    rounding: Rounding = "nearest"
    """To the nearest, ties to even; or up or down by a draw whose mean is the weight."""

    def __post_init__(self) -> None:
        _check_rounding(self.rounding)


@dataclass(frozen=True, slots=True, kw_only=True)
class BF16:
    """The upper half of a float32: 8 significant bits, the full range."""

    rounding: Rounding = "nearest"
    """To the nearest, ties to even; or up or down by a draw whose mean is the weight."""

    def __post_init__(self) -> None:
        _check_rounding(self.rounding)


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Row:
    """q = round(x / scale), ties to even, with scale = max|x| / 127; all 0 where scale is below 2**-126."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int4Row:
    """As Int8Row with max|x| / 7; two weights a byte, the lower nibble first, an odd end padded with 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneBit:
    """The sign: +amplitude where x > 0, else -amplitude; lowest bit first, padded with 0."""

    amplitude: float
    """What every weight reads as, up to its sign; > 0, normal and finite as a float32."""

    def __post_init__(self) -> None:
        if not _SMALLEST <= self.amplitude <= _LARGEST:
            raise ConfigError(f"amplitude must be > 0 and normal in float32, got {self.amplitude}")


Codec = FP32 | FP16 | BF16 | Int8Row | Int4Row | OneBit

# Names in JSON are part of every snapshot; they do not follow the classes when those are renamed.
KINDS: dict[str, type[Codec]] = {
    "fp32": FP32,
    "fp16": FP16,
    "bf16": BF16,
    "int8_row": Int8Row,
    "int4_row": Int4Row,
    "one_bit": OneBit,
}


def codec_bytes(codec: Codec, dim: int) -> int:
    """Bytes, B, of a packed row of ``dim`` columns."""
    match codec:
        case FP32():
            return 4 * dim
        case FP16() | BF16():
            return 2 * dim
        case Int8Row():
            return 4 + dim
        case Int4Row():
            return 4 + (dim + 1) // 2
        case OneBit():
            return (dim + 7) // 8


def encode(codec: Codec, x_ND: Floats, streams_N: Streams | None = None) -> Bytes:
    """Packed rows, (N, B).

    Stochastic rounding needs ``streams_N``, the seed of each row's draws; the rest ignores it. Equal
    streams give equal draws, so a row that is rounded again needs another stream. Raises ShapeError
    for wrong shapes, dtypes or missing streams, and GradientError for a NaN: only a learner that
    diverged writes one, and every copy of the row would spread it.
    """
    _check_rows(x_ND)
    x_ND = np.ascontiguousarray(x_ND)
    match codec:
        case FP32():
            return x_ND.astype("<f4").view(np.uint8)
        case FP16():
            half_ND = _halves(x_ND, _draws_of(codec.rounding, streams_N, x_ND.shape))
            return half_ND.astype("<u2").view(np.uint8)
        case BF16():
            brain_ND = _brains(x_ND, _draws_of(codec.rounding, streams_N, x_ND.shape))
            return brain_ND.astype("<u2").view(np.uint8)
        case Int8Row():
            scale_N1, level_ND = _levels(x_ND, 127)
            return np.concatenate([scale_N1.astype("<f4").view(np.uint8), level_ND.view(np.uint8)], axis=1)
        case Int4Row():
            scale_N1, level_ND = _levels(x_ND, 7)
            nibble_ND = np.pad(level_ND.view(np.uint8) & 15, ((0, 0), (0, x_ND.shape[1] % 2)))
            packed_NB = nibble_ND[:, ::2] | nibble_ND[:, 1::2] << 4
            return np.concatenate([scale_N1.astype("<f4").view(np.uint8), packed_NB], axis=1)
        case OneBit():
            return np.packbits(x_ND > 0, axis=1, bitorder="little")


def decode(codec: Codec, bytes_NB: Bytes, dim: int) -> Floats:
    """Weights of packed rows, (N, D). Raises ShapeError unless each row has ``codec_bytes``."""
    wanted = codec_bytes(codec, dim)
    if bytes_NB.ndim != 2 or bytes_NB.shape[1] != wanted or bytes_NB.dtype != np.uint8:
        raise ShapeError(
            f"want uint8 (N, {wanted}) for {dim} columns of {codec}, got {bytes_NB.dtype} {bytes_NB.shape}"
        )
    # Only bytes that encode did not make can overflow or be NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        return _unpacked(codec, np.ascontiguousarray(bytes_NB), dim)


def error_bound(codec: Codec, x_ND: Floats) -> Bounds:
    """Largest |decode(encode(x)) - x| of each weight, (N, D); infinite where an infinity is cut.

    Half a step of the format to the nearest, a whole one by a draw, and what saturation cuts off. Row
    codecs: half a scale and 2**-15 of it for rounded arithmetic, or max|x| where the scale is 0.
    """
    _check_rows(x_ND)
    size_ND = np.abs(x_ND.astype(np.float64))
    match codec:
        case FP32():
            return np.zeros_like(size_ND)
        case FP16():
            step_ND = np.maximum(size_ND * 2.0**-10, 2.0**-24)
            return np.maximum(step_ND * _steps_lost(codec.rounding), size_ND - float(_LARGEST_HALF))
        case BF16():
            # At most one step is cut off above the largest: 2**-8 of x, which is half of the bound on a step.
            return np.maximum(size_ND * 2.0**-7, 2.0**-133) * _steps_lost(codec.rounding)
        case Int8Row() | Int4Row():
            scale_N1 = _row_scales(x_ND, 127 if isinstance(codec, Int8Row) else 7).astype(np.float64)
            row_N1 = size_ND.max(axis=1, keepdims=True, initial=0.0)
            bound_N1 = np.where(scale_N1 > 0, scale_N1 * (0.5 + 2.0**-15), row_N1)
            return np.where(np.isinf(size_ND), np.inf, bound_N1)
        case OneBit():
            return np.abs(size_ND - float(np.float32(codec.amplitude)))


def _steps_lost(rounding: Rounding) -> float:
    return 0.5 if rounding == "nearest" else 1.0


def _halves(x_ND: Floats, draws_ND: Bits | None) -> NDArray[np.uint16]:
    size_ND = np.minimum(np.abs(x_ND), _LARGEST_HALF)
    near_ND = size_ND.astype(np.float16)
    bits_ND = near_ND.view(np.uint16)
    if draws_ND is not None:
        bits_ND = bits_ND - (near_ND.astype(np.float32) > size_ND)
        lower_ND = bits_ND.view(np.float16).astype(np.float64)
        # Behind the largest half lies infinity: nothing is above its grid, and the fraction is 0.
        upper_ND = (bits_ND + np.uint16(1)).view(np.float16).astype(np.float64)
        fraction_ND = (size_ND - lower_ND) / (upper_ND - lower_ND)
        bits_ND = bits_ND + (draws_ND < (fraction_ND * 2.0**24).astype(np.uint32))
    return np.where(np.signbit(x_ND), bits_ND | 0x8000, bits_ND).astype(np.uint16)


def _brains(x_ND: Floats, draws_ND: Bits | None) -> NDArray[np.uint16]:
    bits_ND = x_ND.view(np.uint32)
    lower_ND, cut_ND = bits_ND >> 16 & 0x7FFF, bits_ND & 0xFFFF
    away_ND = cut_ND + (lower_ND & 1) > 0x8000 if draws_ND is None else draws_ND < cut_ND << 8
    size_ND = np.minimum(lower_ND + away_ND, _LARGEST_BRAIN)
    packed_ND: NDArray[np.uint16] = (size_ND | bits_ND >> 16 & 0x8000).astype(np.uint16)
    return packed_ND


def _unpacked(codec: Codec, bytes_NB: Bytes, dim: int) -> Floats:
    match codec:
        case FP32():
            return bytes_NB.view("<f4").astype(np.float32)
        case FP16():
            return bytes_NB.view("<f2").astype(np.float32)
        case BF16():
            return (bytes_NB.view("<u2").astype(np.uint32) << 16).view(np.float32)
        case Int8Row():
            return bytes_NB[:, 4:].view(np.int8).astype(np.float32) * _scales(bytes_NB)
        case Int4Row():
            both_NP = bytes_NB[:, 4:]
            nibble_ND = np.stack([both_NP << 4, both_NP & 0xF0], axis=2).reshape(len(both_NP), -1)[:, :dim]
            return (nibble_ND.view(np.int8) >> 4).astype(np.float32) * _scales(bytes_NB)
        case OneBit():
            positive_ND = np.unpackbits(bytes_NB, axis=1, count=dim, bitorder="little") > 0
            amplitude = np.float32(codec.amplitude)
            return np.where(positive_ND, amplitude, -amplitude)


def _row_scales(x_ND: Floats, levels: int) -> Floats:
    scale_N1 = np.abs(x_ND).max(axis=1, keepdims=True, initial=np.float32(0)) / np.float32(levels)
    scale_N1 = np.minimum(scale_N1, np.float32(_LARGEST_SCALE[levels]))
    return np.where(scale_N1 < np.float32(_SMALLEST), np.float32(0), scale_N1)


def _levels(x_ND: Floats, levels: int) -> tuple[Floats, NDArray[np.int8]]:
    scale_N1 = _row_scales(x_ND, levels)
    # With a scale of 0 every |x| is far below a half, so dividing by 1 gives level 0.
    level_ND = np.rint(x_ND / np.where(scale_N1 > 0, scale_N1, np.float32(1)))
    return scale_N1, np.clip(level_ND, -levels, levels).astype(np.int8)


def _scales(bytes_NB: Bytes) -> Floats:
    return np.ascontiguousarray(bytes_NB[:, :4]).view("<f4").astype(np.float32)


def _draws_of(rounding: Rounding, streams_N: Streams | None, shape: tuple[int, ...]) -> Bits | None:
    if rounding == "nearest":
        return None
    if streams_N is None or streams_N.shape != shape[:1] or streams_N.dtype != np.uint64:
        got = None if streams_N is None else f"{streams_N.dtype} {streams_N.shape}"
        raise ShapeError(f"stochastic rounding wants streams uint64 {shape[:1]}, got {got}")
    return _draws(streams_N, shape[1])


def _draws(streams_N: Streams, dim: int) -> Bits:
    """24 bits for each weight, (N, D): below 2**24 times its fraction of a step, it goes away from 0."""
    hash_ND = mix64_each(np.add.outer(streams_N, np.arange(dim, dtype=np.uint64)))
    return (hash_ND >> np.uint64(40)).astype(np.uint32)


def _check_rows(x_ND: Floats) -> None:
    if x_ND.ndim != 2 or x_ND.dtype != np.float32:
        raise ShapeError(f"want rows float32 (N, D), got {x_ND.dtype} {x_ND.shape}")
    nan_ND = np.isnan(x_ND)
    if nan_ND.any():
        row, column = np.argwhere(nan_ND)[0]
        raise GradientError(f"row {row}, column {column} is NaN; restore the table from before it diverged")


def _check_rounding(rounding: str) -> None:
    if rounding not in ("nearest", "stochastic"):
        raise ConfigError(f"rounding must be 'nearest' or 'stochastic', got {rounding!r}")
