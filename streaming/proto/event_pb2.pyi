from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Impression(_message.Message):
    __slots__ = ("request_id", "user_id", "event_time_ms", "domain", "policy", "model_version", "schema_fingerprint", "item_ids", "scores", "propensities", "features", "feature_keys", "feature_lengths")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_KEYS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: int
    event_time_ms: int
    domain: str
    policy: str
    model_version: str
    schema_fingerprint: int
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    propensities: _containers.RepeatedScalarFieldContainer[float]
    features: int
    feature_keys: bytes
    feature_lengths: bytes
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., event_time_ms: _Optional[int] = ..., domain: _Optional[str] = ..., policy: _Optional[str] = ..., model_version: _Optional[str] = ..., schema_fingerprint: _Optional[int] = ..., item_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., propensities: _Optional[_Iterable[float]] = ..., features: _Optional[int] = ..., feature_keys: _Optional[bytes] = ..., feature_lengths: _Optional[bytes] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("event_id", "request_id", "user_id", "item_id", "kind", "value", "event_time_ms")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    event_id: int
    request_id: str
    user_id: int
    item_id: int
    kind: str
    value: float
    event_time_ms: int
    def __init__(self, event_id: _Optional[int] = ..., request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., item_id: _Optional[int] = ..., kind: _Optional[str] = ..., value: _Optional[float] = ..., event_time_ms: _Optional[int] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("topic", "partition", "offset", "reason", "payload", "rejected_at_ms", "key", "replayed_at_ms")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    REJECTED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    reason: str
    payload: bytes
    rejected_at_ms: int
    key: bytes
    replayed_at_ms: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., reason: _Optional[str] = ..., payload: _Optional[bytes] = ..., rejected_at_ms: _Optional[int] = ..., key: _Optional[bytes] = ..., replayed_at_ms: _Optional[int] = ...) -> None: ...
