"""Records to bytes and back: the one place that knows the wire version.

Impressions, feedback and dead letters are Protocol Buffers (streaming/proto/event.proto). Examples
travel as Arrow record batches (streaming/example_wire.py).

Axes: K items of one impression, F features.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from google.protobuf.message import DecodeError

from recsys.features import RaggedKeys
from recsys.interactions import Feedback, Impression
from streaming.errors import WireError
from streaming.proto import event_pb2
from streaming.shown import Shown
from streaming.source import Record
from streaming.statements import request_hash


def encode_impression(impression: Impression) -> bytes:
    """Bytes of one Impression message."""
    lengths_KF = impression.keys.lengths_NF
    return event_pb2.Impression(
        request_id=impression.request_id,
        user_id=impression.user_id,
        event_time_ms=impression.event_time_ms,
        domain=impression.domain,
        policy=impression.policy,
        model_version=impression.model_version,
        schema_fingerprint=impression.schema_fingerprint,
        item_ids=impression.item_ids_K.tolist(),
        scores=impression.scores_K.tolist(),
        propensities=impression.propensities_K.tolist(),
        features=lengths_KF.shape[1],
        feature_keys=impression.keys.keys_T.astype("<u8", copy=False).tobytes(),
        feature_lengths=b"" if (lengths_KF == 1).all() else lengths_KF.tobytes(),
    ).SerializeToString()


def decode_impression(value: bytes) -> Impression:
    """The whole record. Raises WireError with the reason."""
    message, shown = _parse_shown(value)
    n_items = len(shown.item_ids)
    shape = (n_items, shown.n_features)
    lengths_KF = np.frombuffer(shown.feature_lengths or bytes([1]) * (shape[0] * shape[1]), np.uint8)
    propensities = tuple(message.propensities) or (float("nan"),) * n_items
    return Impression(
        request_id=shown.request_id,
        user_id=shown.user_id,
        event_time_ms=shown.event_time_ms,
        domain=shown.domain,
        policy=message.policy,
        model_version=message.model_version,
        schema_fingerprint=shown.schema_fingerprint,
        item_ids_K=np.array(shown.item_ids, np.uint64),
        scores_K=np.array(shown.scores, np.float32),
        propensities_K=np.array(propensities, np.float32),
        keys=RaggedKeys(
            np.frombuffer(shown.feature_keys, "<u8").astype(np.uint64, copy=False), lengths_KF.reshape(shape)
        ),
    )


def decode_shown(value: bytes) -> Shown:
    """What the joiner needs of an Impression message, features unopened. Raises WireError."""
    return _parse_shown(value)[1]


def _parse_shown(value: bytes) -> tuple[event_pb2.Impression, Shown]:
    try:
        message = event_pb2.Impression.FromString(value)
    except DecodeError as error:
        raise WireError(f"no Impression in {len(value)} bytes: {error}") from error
    item_ids, scores = tuple(message.item_ids), tuple(message.scores)
    n_items = len(item_ids)
    if n_items and not message.request_id:
        raise WireError(f"impression of {n_items} items has no request_id")
    for what, count in (("scores", len(scores)), ("propensities", len(message.propensities))):
        if count not in (0, n_items):
            raise WireError(f"impression {message.request_id!r}: {count} {what} for {n_items} items")
    keys, lengths, n_features = message.feature_keys, message.feature_lengths, message.features
    if n_items and not n_features:
        raise WireError(f"impression {message.request_id!r} of {n_items} items has no features")
    if len(lengths) not in (0, n_items * n_features):
        raise WireError(
            f"impression {message.request_id!r}: {len(lengths)} lengths do not fit {n_items} items of "
            f"{n_features} features"
        )
    shown = Shown(
        message.request_id,
        message.user_id,
        message.event_time_ms,
        message.domain,
        message.model_version,
        message.schema_fingerprint,
        item_ids,
        scores or (float("nan"),) * n_items,
        n_features,
        keys,
        lengths,
        _key_ends(lengths, n_items, n_features),
        request_hash(message.request_id),
        value,
    )
    if len(keys) != (shown.key_ends[-1] if n_items else 0):
        raise WireError(
            f"impression {shown.request_id!r}: {len(keys)} key bytes and {len(lengths)} lengths "
            f"do not make {n_items} items of {n_features} features"
        )
    return message, shown


def _key_ends(lengths: bytes, n_items: int, n_features: int) -> tuple[int, ...]:
    if not n_items:
        return ()
    if not lengths:
        return tuple(range(8 * n_features, 8 * n_features * n_items + 1, 8 * n_features or 1))
    if n_items == 1:
        return (8 * sum(lengths),)
    ends = list(accumulate(lengths))
    return tuple(8 * end for end in ends[n_features - 1 :: n_features])


def encode_feedback(feedback: Feedback) -> bytes:
    """Bytes of one Feedback message."""
    return event_pb2.Feedback(
        event_id=feedback.event_id,
        request_id=feedback.request_id,
        user_id=feedback.user_id,
        item_id=feedback.item_id,
        kind=feedback.kind,
        value=feedback.value,
        event_time_ms=feedback.event_time_ms,
    ).SerializeToString()


def decode_feedback(value: bytes) -> Feedback:
    """The record. Raises WireError with the reason."""
    try:
        message = event_pb2.Feedback.FromString(value)
    except DecodeError as error:
        raise WireError(f"no Feedback in {len(value)} bytes: {error}") from error
    if message.kind and not message.request_id:
        raise WireError(f"feedback {message.event_id:016x} of kind {message.kind!r} has no request_id")
    return Feedback(
        event_id=message.event_id,
        request_id=message.request_id,
        user_id=message.user_id,
        item_id=message.item_id,
        kind=message.kind,
        value=message.value,
        event_time_ms=message.event_time_ms,
    )


def impression_at(value: bytes, event_time_ms: int) -> bytes:
    """The bytes of an Impression at another event time.

    Protocol Buffers read two messages behind one another as one; a field's last value counts.
    """
    return value + event_pb2.Impression(event_time_ms=event_time_ms).SerializeToString()


def feedback_at(value: bytes, event_time_ms: int) -> bytes:
    """The bytes of a Feedback at another event time."""
    return value + event_pb2.Feedback(event_time_ms=event_time_ms).SerializeToString()


def impression_of(value: bytes, request_id: str) -> bytes:
    """The bytes of an Impression of another request."""
    return value + event_pb2.Impression(request_id=request_id).SerializeToString()


def feedback_of(value: bytes, request_id: str) -> bytes:
    """The bytes of a Feedback on another request."""
    return value + event_pb2.Feedback(request_id=request_id).SerializeToString()


def encode_dead_letter(record: Record, reason: str, *, rejected_at_ms: int) -> bytes:
    """Bytes of one DeadLetter message around a record that could not be read."""
    return event_pb2.DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=reason,
        payload=record.value,
        rejected_at_ms=rejected_at_ms,
        key=record.key,
    ).SerializeToString()


def decode_dead_letter(value: bytes) -> tuple[Record, str, int]:
    """(record as it came; reason; wall clock of its rejection in ms). Raises WireError."""
    message = _parse_dead_letter(value)
    record = Record(message.topic, message.partition, message.offset, message.key, message.payload)
    return record, message.reason, message.rejected_at_ms


def encode_replay_mark(record: Record, *, replayed_at_ms: int) -> bytes:
    """Bytes of a DeadLetter message that only says that ``record`` was sent again."""
    return event_pb2.DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        replayed_at_ms=replayed_at_ms,
    ).SerializeToString()


def is_replay_mark(value: bytes) -> bool:
    """Whether a DeadLetter message holds no message but such a mark. Raises WireError."""
    return _parse_dead_letter(value).replayed_at_ms != 0


def _parse_dead_letter(value: bytes) -> event_pb2.DeadLetter:
    try:
        return event_pb2.DeadLetter.FromString(value)
    except DecodeError as error:
        raise WireError(f"no DeadLetter in {len(value)} bytes: {error}") from error
