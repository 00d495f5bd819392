"""64-bit feature keys: (feature, ids) packed without loss, or a string hashed to all 64 bits.

A key is ``feature << 52 | value``. Integer ids and crosses of them are packed bit by bit, so two
different ids can never share a key; an id that does not fit is refused. Only strings are hashed:
n distinct strings clash with probability of about n² / 2⁶⁵.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.errors import KeyRangeError

Keys = NDArray[np.uint64]
Ids = NDArray[np.int64]

VALUE_BITS = 52
MAX_FEATURE = (1 << (64 - VALUE_BITS)) - 1


def pack(feature: int, columns: Sequence[Ids], bits: Sequence[int]) -> Keys:
    """Keys of one feature, (N,): its columns' ids side by side, the first one highest.

    ``columns`` are C arrays of equal length (N,), ``bits`` how wide each one is.
    Raises KeyRangeError when an id is negative or too wide: nothing is ever cut off.
    """
    value_N = np.zeros(len(columns[0]), dtype=np.uint64)
    for ids_N, width in zip(columns, bits, strict=True):
        if len(ids_N) and (ids_N.min() < 0 or int(ids_N.max()) >> width):
            worst = int(ids_N.min() if ids_N.min() < 0 else ids_N.max())
            raise KeyRangeError(
                f"feature {feature}: id {worst} does not fit {width} bits; give its column more bits"
            )
        value_N = (value_N << np.uint64(width)) | ids_N.astype(np.uint64)
    return value_N | np.uint64(feature << VALUE_BITS)


def unpack(key: int) -> tuple[int, int]:
    """(feature, value) of one packed key."""
    return key >> VALUE_BITS, key & ((1 << VALUE_BITS) - 1)


def hash_string(feature: int, text: str) -> int:
    """Key of a string: all 64 bits of a keyed BLAKE2b, the same on every machine."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=feature.to_bytes(2, "little"))
    return int.from_bytes(digest.digest(), "little")
