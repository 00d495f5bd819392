"""An impression on its way through the joiner: features stay the bytes they arrived as.

Axes: K items of one impression, F features, B rows of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch, ItemIds, plain_examples


@dataclass(slots=True, eq=False)
class Shown:
    """Items of one impression with their features still packed. Immutable by convention: a frozen
    dataclass would cost more to build than the message costs to parse."""

    request_id: str
    user_id: int
    event_time_ms: int
    domain: str
    schema_fingerprint: int
    item_ids: tuple[int, ...]
    """In the order shown."""
    scores: tuple[float, ...]
    n_features: int
    feature_keys: bytes
    """Little-endian 64-bit keys, item-major."""
    feature_lengths: bytes
    """K * F bytes; empty where each item and feature has one key."""
    key_ends: tuple[int, ...]
    """Where each item's keys end in ``feature_keys``, in bytes."""


class Joined(NamedTuple):
    """One item with its label."""

    shown: Shown
    position: int
    label: float


def example_ids(request_ids: Sequence[str], item_id_B: ItemIds) -> NDArray[np.uint64]:
    """64 bits per (request, item), (B,): the same pair always has the same id.

    The request is hashed with BLAKE2b, then both are mixed with splitmix64's finaliser.
    """
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in request_ids)
    return _mix64(np.frombuffer(digests, "<u8") ^ _mix64(item_id_B))


def _mix64(x_B: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x_B = x_B + np.uint64(0x9E3779B97F4A7C15)
    x_B = (x_B ^ (x_B >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x_B = (x_B ^ (x_B >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x_B ^ (x_B >> np.uint64(31))


def assemble(rows: Sequence[Joined]) -> ExampleBatch:
    """Rows of one feature schema as a batch, in their order; at least one row."""
    item_id_B = np.array([shown.item_ids[position] for shown, position, _ in rows], np.uint64)
    first = rows[0].shown
    request_ids = [row.shown.request_id for row in rows]
    plain = plain_examples(
        example_id_B=example_ids(request_ids, item_id_B),
        user_id_B=np.array([row.shown.user_id for row in rows], np.uint64),
        item_id_B=item_id_B,
        event_time_ms_B=np.array([row.shown.event_time_ms for row in rows], np.int64),
        label_B=np.array([row.label for row in rows], np.float32),
        keys=_ragged_keys(rows, first.n_features),
        schema_fingerprint=first.schema_fingerprint,
    )
    return replace(
        plain,
        request_id_B=request_ids,
        domain_B=[row.shown.domain for row in rows],
        score_B=np.array([shown.scores[position] for shown, position, _ in rows], np.float32),
    )


def _ragged_keys(rows: Sequence[Joined], n_features: int) -> RaggedKeys:
    keys, lengths = [], []
    one_each = bytes([1]) * n_features
    for shown, position, _ in rows:
        start = shown.key_ends[position - 1] if position else 0
        keys.append(shown.feature_keys[start : shown.key_ends[position]])
        own = shown.feature_lengths[position * n_features : (position + 1) * n_features]
        lengths.append(own or one_each)
    lengths_NF = np.frombuffer(b"".join(lengths), np.uint8).reshape(len(rows), n_features)
    return RaggedKeys(np.frombuffer(b"".join(keys), "<u8").astype(np.uint64, copy=False), lengths_NF)
