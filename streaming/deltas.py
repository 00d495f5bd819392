"""Table and dense deltas: what a trainer publishes and a serving replica follows.

The rules of the wire stand in streaming/proto/delta.proto. The checksum is the last field written,
so it covers the bytes before it exactly as they travelled, fields of a newer writer included.

Axes: N rows of one delta, D floats of a row.
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
from streaming.errors import DamagedDelta
from streaming.proto import delta_pb2
from streaming.sink import EventSink
from streaming.source import EventSource
from streaming.topics import DELTAS

Keys = NDArray[np.uint64]
Floats = NDArray[np.float32]

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
    """Event time of the newest example folded in."""
    sealed_at_ms: int
    """Wall clock of the sender."""
    updated_keys: Keys
    rows: Floats
    """(N, D), in the order of ``updated_keys``."""
    expired_keys: Keys

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.rows) != len(self.updated_keys):
            raise ShapeError(
                f"table {self.table!r} delta {self.sequence}: want one row per key; got "
                f"{self.rows.shape} for {len(self.updated_keys)} keys"
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
        codec=delta_pb2.CODEC_FP32,
        updated_keys=delta.updated_keys.astype("<u8", copy=False).tobytes(),
        rows=delta.rows.astype("<f4", copy=False).tobytes(),
        expired_keys=delta.expired_keys.astype("<u8", copy=False).tobytes(),
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
    if message.codec != delta_pb2.CODEC_FP32:
        raise DamagedDelta(f"table {message.table!r} delta {message.sequence}: unknown codec {message.codec}")
    updated_keys = np.frombuffer(message.updated_keys, "<u8")
    rows = np.frombuffer(message.rows, "<f4")
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
