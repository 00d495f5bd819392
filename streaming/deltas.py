"""Table and dense deltas: what a trainer publishes and a serving replica follows.

The rules of the wire stand in streaming/proto/delta.proto. The checksum is the last field written,
so it covers the bytes before it exactly as they travelled, fields of a newer writer included.

Axes: N rows of one delta, B bytes of a packed row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import crc32c
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsys.errors import ShapeError
from streaming.errors import DamagedDelta, OffsetLost
from streaming.proto import delta_pb2
from streaming.row_codecs import CodecName
from streaming.sink import EventSink
from streaming.source import EventSource
from streaming.topics import DELTAS

Keys = NDArray[np.uint64]
Bytes = NDArray[np.uint8]

# Names are ours and numbers are the wire's, so neither moves with the other.
_CODEC_NUMBERS: dict[CodecName, delta_pb2.Codec] = {
    "fp32": delta_pb2.CODEC_FP32,
    "fp16": delta_pb2.CODEC_FP16,
    "int8_row": delta_pb2.CODEC_INT8_ROW,
}
_CODEC_NAMES = {number: name for name, number in _CODEC_NUMBERS.items()}
_CHECKSUM_TAG = bytes([delta_pb2.Delta.CRC32C_FIELD_NUMBER << 3 | 5])
_CHECKSUM_BYTES = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableDelta:
    """Rows of one table shard as they stood when sealed; whole rows, never differences."""

    model: str
    table: str
    spec_fingerprint: int
    shard: int
    incarnation: int
    sequence: int
    base_sequence: int
    """What a receiver must have applied before; ``sequence - 1`` or lower."""
    as_of_ms: int
    """Event time of the newest example folded in; 0 where more of the same seal follows."""
    sealed_at_ms: int
    """Wall clock of the sender; 0 where more of the same seal follows."""
    updated_keys: Keys
    rows: Bytes
    """(N, B), in the order of ``updated_keys``, packed by ``codec`` as streaming.row_codecs says."""
    expired_keys: Keys
    codec: CodecName = "fp32"
    dense_sequence: int = 0
    """Newest DenseDelta that surely came before this; a receiver without it has lost one."""

    def __post_init__(self) -> None:
        rows = self.rows
        if rows.ndim != 2 or len(rows) != len(self.updated_keys) or rows.dtype != np.uint8:
            raise ShapeError(
                f"table {self.table!r} delta {self.sequence}: want one packed row per key; got "
                f"{rows.dtype} {rows.shape} for {len(self.updated_keys)} keys"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseDelta:
    """Every dense parameter of a model, whole."""

    model: str
    incarnation: int
    sequence: int
    """Counted apart from the table's."""
    as_of_ms: int
    sealed_at_ms: int
    tensors: Mapping[str, NDArray[Any]]


def encode_delta(delta: TableDelta | DenseDelta) -> bytes:
    """Bytes of one Delta message, checksum last."""
    if isinstance(delta, TableDelta):
        message = delta_pb2.Delta(table=_table_message(delta))
    else:
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in delta.tensors.items()}
        message = delta_pb2.Delta(
            dense=delta_pb2.DenseDelta(
                model=delta.model,
                incarnation=delta.incarnation,
                sequence=delta.sequence,
                as_of_ms=delta.as_of_ms,
                sealed_at_ms=delta.sealed_at_ms,
                safetensors=save(tensors),
            )
        )
    body = message.SerializeToString()
    checksum: int = crc32c.crc32c(body)
    return body + _CHECKSUM_TAG + checksum.to_bytes(4, "little")


def _table_message(delta: TableDelta) -> delta_pb2.TableDelta:
    return delta_pb2.TableDelta(
        model=delta.model,
        table=delta.table,
        spec_fingerprint=delta.spec_fingerprint,
        shard=delta.shard,
        incarnation=delta.incarnation,
        sequence=delta.sequence,
        base_sequence=delta.base_sequence,
        as_of_ms=delta.as_of_ms,
        sealed_at_ms=delta.sealed_at_ms,
        codec=_CODEC_NUMBERS[delta.codec],
        updated_keys=delta.updated_keys.astype("<u8", copy=False).tobytes(),
        rows=delta.rows.tobytes(),
        expired_keys=delta.expired_keys.astype("<u8", copy=False).tobytes(),
        dense_sequence=delta.dense_sequence,
    )


def decode_delta(value: bytes) -> TableDelta | DenseDelta:
    """The delta; its arrays are read-only views. Raises DamagedDelta: nothing may be used of it."""
    body = memoryview(value)[:-_CHECKSUM_BYTES]
    tail = value[-_CHECKSUM_BYTES:]
    if tail[:1] != _CHECKSUM_TAG or int.from_bytes(tail[1:], "little") != crc32c.crc32c(body):
        raise DamagedDelta(f"delta of {len(value)} bytes has a wrong checksum; load a snapshot")
    try:
        message = delta_pb2.Delta.FromString(value)
        if message.WhichOneof("body") == "dense":
            return _read_dense(message.dense)
        return _read_table(message.table)
    except (DecodeError, SafetensorError, ValueError, ShapeError) as error:
        raise DamagedDelta(f"delta of {len(value)} bytes cannot be read: {error}") from error


def _read_table(message: delta_pb2.TableDelta) -> TableDelta:
    codec = _CODEC_NAMES.get(message.codec)
    if codec is None:
        raise DamagedDelta(
            f"table {message.table!r} shard {message.shard}: delta {message.sequence} has codec "
            f"{message.codec}, want one of {sorted(_CODEC_NAMES)}; load a snapshot"
        )
    updated_keys = np.frombuffer(message.updated_keys, "<u8")
    rows = np.frombuffer(message.rows, np.uint8)
    return TableDelta(
        model=message.model,
        table=message.table,
        spec_fingerprint=message.spec_fingerprint,
        shard=message.shard,
        incarnation=message.incarnation,
        sequence=message.sequence,
        base_sequence=message.base_sequence,
        as_of_ms=message.as_of_ms,
        sealed_at_ms=message.sealed_at_ms,
        updated_keys=updated_keys,
        rows=rows.reshape(len(updated_keys), -1) if len(updated_keys) else rows.reshape(0, 0),
        expired_keys=np.frombuffer(message.expired_keys, "<u8"),
        codec=codec,
        dense_sequence=message.dense_sequence,
    )


def _read_dense(message: delta_pb2.DenseDelta) -> DenseDelta:
    return DenseDelta(
        model=message.model,
        incarnation=message.incarnation,
        sequence=message.sequence,
        as_of_ms=message.as_of_ms,
        sealed_at_ms=message.sealed_at_ms,
        tensors=load(message.safetensors),
    )


class DeltaPublisher:
    """Writes deltas to one partition of the delta log, in order. One caller at a time."""

    def __init__(self, sink: EventSink, *, partition: int = 0) -> None:
        self._sink, self._partition = sink, partition

    def publish(self, delta: TableDelta | DenseDelta) -> int:
        """Hand one delta to the log; its size in bytes. Raises SinkUnavailable."""
        value = encode_delta(delta)
        name = f"{delta.table}/{delta.shard}" if isinstance(delta, TableDelta) else "dense"
        self._sink.publish(DELTAS, f"{delta.model}/{name}".encode(), value, partition=self._partition)
        return len(value)

    def flush(self) -> None:
        """Return when every delta has arrived. Raises SinkUnavailable if one may not have."""
        self._sink.flush()

    def position(self) -> int:
        """Offset in the delta log after everything that has arrived; 0 before the first."""
        return self._sink.position(DELTAS, self._partition)


class DeltaSubscriber:
    """Reads deltas from one partition of the delta log, in order. One caller at a time."""

    def __init__(self, source: EventSource, *, partition: int = 0) -> None:
        self._source, self._partition = source, partition

    def seek(self, position: int) -> None:
        """Read on from this offset, as named by a snapshot. Raises OffsetLost."""
        self._source.seek({(DELTAS, self._partition): position})

    def poll(self, *, timeout_s: float) -> list[TableDelta | DenseDelta]:
        """The next deltas. Raises SourceUnavailable, or DamagedDelta after passing the damaged one;
        those that were polled with it are lost too, so a receiver then needs a snapshot."""
        records = self._source.poll(max_records=64, timeout_s=timeout_s)
        return [decode_delta(record.value) for record in records]

    def check(self) -> None:
        """Return where the log is in reach and holds all that was read.

        Raises SourceUnavailable where it is out of reach, and OffsetLost where it ends before what was
        read: a broker that lost its log then sends nothing rather than an error.
        """
        at = (DELTAS, self._partition)
        position, end = self._source.positions()[at], self._source.end_offsets()[at]
        if position > end:
            raise OffsetLost(f"{at}: read up to {position}, but the log ends at {end}; load a snapshot")
