from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class RankRequest(_message.Message):
    __slots__ = ("request_id", "user_id", "domain", "item_ids", "context", "request_time_ms", "top_k", "shadow")
    class ContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: int
    domain: str
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    context: _containers.ScalarMap[str, float]
    request_time_ms: int
    top_k: int
    shadow: bool
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[int] = ..., domain: _Optional[str] = ..., item_ids: _Optional[_Iterable[int]] = ..., context: _Optional[_Mapping[str, float]] = ..., request_time_ms: _Optional[int] = ..., top_k: _Optional[int] = ..., shadow: _Optional[bool] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("request_id", "item_ids", "scores", "propensities", "policy", "model_version", "parameters_as_of_ms", "parameter_age_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    propensities: _containers.RepeatedScalarFieldContainer[float]
    policy: str
    model_version: str
    parameters_as_of_ms: int
    parameter_age_ms: int
    def __init__(self, request_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ..., propensities: _Optional[_Iterable[float]] = ..., policy: _Optional[str] = ..., model_version: _Optional[str] = ..., parameters_as_of_ms: _Optional[int] = ..., parameter_age_ms: _Optional[int] = ...) -> None: ...
