from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_FP32: _ClassVar[Codec]
    CODEC_FP16: _ClassVar[Codec]
    CODEC_INT8_ROW: _ClassVar[Codec]
CODEC_UNSPECIFIED: Codec
CODEC_FP32: Codec
CODEC_FP16: Codec
CODEC_INT8_ROW: Codec

class Delta(_message.Message):
    __slots__ = ("table", "dense", "crc32c")
    TABLE_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    table: TableDelta
    dense: DenseDelta
    crc32c: int
    def __init__(self, table: _Optional[_Union[TableDelta, _Mapping]] = ..., dense: _Optional[_Union[DenseDelta, _Mapping]] = ..., crc32c: _Optional[int] = ...) -> None: ...

class TableDelta(_message.Message):
    __slots__ = ("model", "table", "spec_fingerprint", "shard", "incarnation", "sequence", "base_sequence", "as_of_ms", "sealed_at_ms", "codec", "updated_keys", "rows", "expired_keys", "dense_sequence")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BASE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    SEALED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    UPDATED_KEYS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_KEYS_FIELD_NUMBER: _ClassVar[int]
    DENSE_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    table: str
    spec_fingerprint: int
    shard: int
    incarnation: int
    sequence: int
    base_sequence: int
    as_of_ms: int
    sealed_at_ms: int
    codec: Codec
    updated_keys: bytes
    rows: bytes
    expired_keys: bytes
    dense_sequence: int
    def __init__(self, model: _Optional[str] = ..., table: _Optional[str] = ..., spec_fingerprint: _Optional[int] = ..., shard: _Optional[int] = ..., incarnation: _Optional[int] = ..., sequence: _Optional[int] = ..., base_sequence: _Optional[int] = ..., as_of_ms: _Optional[int] = ..., sealed_at_ms: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., updated_keys: _Optional[bytes] = ..., rows: _Optional[bytes] = ..., expired_keys: _Optional[bytes] = ..., dense_sequence: _Optional[int] = ...) -> None: ...

class DenseDelta(_message.Message):
    __slots__ = ("model", "incarnation", "sequence", "as_of_ms", "sealed_at_ms", "safetensors")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_MS_FIELD_NUMBER: _ClassVar[int]
    SEALED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    SAFETENSORS_FIELD_NUMBER: _ClassVar[int]
    model: str
    incarnation: int
    sequence: int
    as_of_ms: int
    sealed_at_ms: int
    safetensors: bytes
    def __init__(self, model: _Optional[str] = ..., incarnation: _Optional[int] = ..., sequence: _Optional[int] = ..., as_of_ms: _Optional[int] = ..., sealed_at_ms: _Optional[int] = ..., safetensors: _Optional[bytes] = ...) -> None: ...
