"""How a table's rows travel: each slice packed by itself, side by side, in the order of the spec.

A slice of large weights beside one of small ones would cost the small ones their precision if a row
had one scale for all. A slice so narrow that its codec would not shrink it travels as fp32. Both ends
take the slices from their own spec, whose fingerprint a delta names.

Axes: N rows, D weights of a row, B bytes of a packed row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, ShapeError
from recsys.table.codecs import FP16, FP32, Codec, Int8Row, codec_bytes, decode, encode
from recsys.table.spec import TableSpec

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

CodecName = Literal["fp32", "fp16", "int8_row"]
CODECS: Mapping[CodecName, Codec] = MappingProxyType({"fp32": FP32(), "fp16": FP16(), "int8_row": Int8Row()})


@dataclass(frozen=True, slots=True)
class RowCodec:
    """One codec over the slices of one table."""

    name: CodecName
    dims: tuple[int, ...]
    """Weights of each slice, in column order."""

    def __post_init__(self) -> None:
        if self.name not in CODECS:
            raise ConfigError(f"codec of rows on the wire must be one of {sorted(CODECS)}, got {self.name!r}")

    @classmethod
    def of(cls, name: CodecName, spec: TableSpec) -> RowCodec:
        """The codec for rows of this table. Raises ConfigError for a name that no delta may carry."""
        return cls(name, tuple(part.dim for part in spec.slices))

    @property
    def row_bytes(self) -> int:
        """B."""
        return sum(codec_bytes(self.codec_of(dim), dim) for dim in self.dims)

    def codec_of(self, dim: int) -> Codec:
        """How a slice of so many columns travels."""
        is_smaller = codec_bytes(CODECS[self.name], dim) < 4 * dim
        return CODECS[self.name] if is_smaller else CODECS["fp32"]

    def pack(self, rows_ND: Floats) -> Bytes:
        """Rows as they travel, (N, B). Raises GradientError for a NaN where the codec cannot say one."""
        if rows_ND.ndim != 2 or rows_ND.shape[1] != sum(self.dims) or rows_ND.dtype != np.float32:
            raise ShapeError(f"want rows float32 (N, {sum(self.dims)}), got {rows_ND.dtype} {rows_ND.shape}")
        if self.name == "fp32":
            return np.ascontiguousarray(rows_ND, "<f4").view(np.uint8)
        columns = pairwise(np.cumsum([0, *self.dims]).tolist())
        parts = [encode(self.codec_of(end - begin), rows_ND[:, begin:end]) for begin, end in columns]
        return np.concatenate(parts, axis=1)

    def unpack(self, bytes_NB: Bytes) -> Floats:
        """What packed rows mean, (N, D). Raises ShapeError unless each has ``row_bytes``."""
        if bytes_NB.ndim != 2 or bytes_NB.shape[1] != self.row_bytes or bytes_NB.dtype != np.uint8:
            raise ShapeError(
                f"want {self.name} rows uint8 (N, {self.row_bytes}), got {bytes_NB.dtype} {bytes_NB.shape}"
            )
        if self.name == "fp32":
            return np.ascontiguousarray(bytes_NB).view("<f4").astype(np.float32, copy=False)
        begin, parts = 0, []
        for dim in self.dims:
            codec = self.codec_of(dim)
            end = begin + codec_bytes(codec, dim)
            parts.append(decode(codec, bytes_NB[:, begin:end], dim))
            begin = end
        return np.concatenate(parts, axis=1)

    def as_served(self, rows_ND: Floats) -> Floats:
        """What a replica holds of these training rows, (N, D)."""
        return rows_ND if self.name == "fp32" else self.unpack(self.pack(rows_ND))
