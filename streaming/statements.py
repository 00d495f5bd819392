"""What an example states, and the 64-bit ids that such a statement has in every life of a joiner.

A statement is a whole number: a bit for each label that it is about, then two bits for its kind.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from recsys.hashing import mix64, mix64_each

POSITIVE, NEGATIVE, RETRACTION = 0, 1, 2
"""Kinds: a label that was earned, labels that are 0, and a 0 that is taken back."""
KIND_BITS = 2
KIND_MASK = (1 << KIND_BITS) - 1
MAX_LABELS = 12


def statement(labels: int, kind: int) -> int:
    """The statement of ``kind`` about the labels whose bits are set."""
    return labels << KIND_BITS | kind


def request_hash(request_id: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "little")


def item_key(hashed_request: int, item_id: int) -> int:
    """64 bits per (request, item)."""
    return mix64(hashed_request ^ mix64(item_id))


def example_id(key: int, stated: int) -> int:
    """64 bits per (request, item, statement); ``key`` is the item_key."""
    return mix64(key ^ _mixed(stated))


def item_keys(hashed_request_B: NDArray[np.uint64], item_id_B: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """``item_key`` of each row, (B,)."""
    return mix64_each(hashed_request_B ^ mix64_each(item_id_B))


def statement_ids(key_B: NDArray[np.uint64], stated_B: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """``example_id`` of each row, (B,)."""
    return mix64_each(key_B ^ mix64_each(stated_B))


@cache
def _mixed(stated: int) -> int:
    return mix64(stated)
