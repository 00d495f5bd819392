"""An impression on its way through the joiner: features stay the bytes they arrived as.

Axes: K items of one impression, F features, B rows of a batch, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.features import RaggedKeys
from recsys.interactions import ExampleBatch, ItemIds
from streaming.statements import (
    KIND_BITS,
    KIND_MASK,
    POSITIVE,
    RETRACTION,
    item_key,
    item_keys,
    request_hash,
    statement,
    statement_ids,
)

_FIRST_LABEL = statement(1, POSITIVE)


@dataclass(slots=True, eq=False)
class Shown:
    """Items of one impression with their features still packed. Immutable by convention: a frozen
    dataclass would cost more to build than the message costs to parse."""

    request_id: str
    user_id: int
    event_time_ms: int
    domain: str
    model_version: str
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
    request_hash: int
    raw: bytes
    """The message as it came: what is written where the impression has to wait on disk."""

    def key(self, position: int) -> int:
        """64 bits of (request, item)."""
        return item_key(self.request_hash, self.item_ids[position])


class Joined(NamedTuple):
    """One statement about one item."""

    shown: Shown
    position: int
    label: float
    """Of each label that it is about; 0 in a negative and in a retraction."""
    stated: int = _FIRST_LABEL
    """Labels and kind, as ``streaming.statements`` packs them."""
    rate: float = 1.0
    """Share of such negatives that is kept."""
    delay_ms: int = 0
    is_late: bool = False
    is_fast: bool = False


def example_ids(request_ids: Sequence[str], item_id_B: ItemIds) -> NDArray[np.uint64]:
    """64 bits per (request, item), (B,): the same pair always has the same id."""
    return item_keys(np.array([request_hash(text) for text in request_ids], np.uint64), item_id_B)


def assemble(rows: Sequence[Joined], label_names: tuple[str, ...] = ("label",)) -> ExampleBatch:
    """Rows of one feature schema as a batch, in their order; at least one row."""
    shown_B, position_B, label_B, stated_B, rate_B, delay_B, late_B, fast_B = zip(*rows, strict=True)
    item_id_B = np.array([row[0].item_ids[row[1]] for row in rows], np.uint64)
    codes_B = np.array(stated_B, np.uint64)
    keys_B = item_keys(np.array([shown.request_hash for shown in shown_B], np.uint64), item_id_B)
    n_labels = len(label_names)
    first = shown_B[0]
    return ExampleBatch(
        example_id_B=statement_ids(keys_B, codes_B),
        request_id_B=[shown.request_id for shown in shown_B],
        user_id_B=np.array([shown.user_id for shown in shown_B], np.uint64),
        item_id_B=item_id_B,
        event_time_ms_B=np.array([shown.event_time_ms for shown in shown_B], np.int64),
        domain_B=[shown.domain for shown in shown_B],
        model_version_B=[shown.model_version for shown in shown_B],
        label_names=label_names,
        label_BL=_labels(np.array(label_B, np.float32), codes_B, n_labels),
        sample_rate_BL=np.repeat(np.array(rate_B, np.float32)[:, None], n_labels, axis=1),
        weight_B=np.where((codes_B & np.uint64(KIND_MASK)) == RETRACTION, np.float32(-1), np.float32(1)),
        delay_ms_B=np.array(delay_B, np.int64),
        is_late_B=np.array(late_B, np.bool_),
        is_fast_B=np.array(fast_B, np.bool_),
        score_B=np.array([row[0].scores[row[1]] for row in rows], np.float32),
        keys=_ragged_keys(shown_B, position_B, first.n_features),
        schema_fingerprint=first.schema_fingerprint,
    )


def _labels(label_B: NDArray[np.float32], codes_B: NDArray[np.uint64], n_labels: int) -> NDArray[np.float32]:
    bits_L = np.uint64(1) << np.arange(KIND_BITS, KIND_BITS + n_labels, dtype=np.uint64)
    is_stated_BL = (codes_B[:, None] & bits_L) != 0
    return np.where(is_stated_BL, label_B[:, None], np.float32(np.nan))


def _ragged_keys(shown_B: Sequence[Shown], position_B: Sequence[int], n_features: int) -> RaggedKeys:
    keys, lengths = [], []
    one_each = bytes([1]) * n_features
    for shown, position in zip(shown_B, position_B, strict=True):
        start = shown.key_ends[position - 1] if position else 0
        keys.append(shown.feature_keys[start : shown.key_ends[position]])
        own = shown.feature_lengths[position * n_features : (position + 1) * n_features]
        lengths.append(own or one_each)
    lengths_NF = np.frombuffer(b"".join(lengths), np.uint8).reshape(len(shown_B), n_features)
    return RaggedKeys(np.frombuffer(b"".join(keys), "<u8").astype(np.uint64, copy=False), lengths_NF)


def halves(batch: ExampleBatch) -> tuple[ExampleBatch, ExampleBatch]:
    """The first and the second half of a batch's rows; at least two rows."""
    first, second = np.array_split(np.arange(len(batch)), 2)
    return batch.take(first), batch.take(second)
