"""Example batches to bytes and back: one Arrow record batch per message, an IPC stream under zstd.

Columns of wire 2 (B rows, L labels, F features):

    example_id, user_id, item_id: uint64        request_id, domain, model_version: string
    event_time_ms, delay_ms: int64              weight, score: float32
    labels, sample_rates: fixed_size_list<float32>[L]
    is_late, is_fast: bool
    feature_keys: list<uint64>                  a row's keys, feature by feature
    feature_lengths: fixed_size_list<uint8>[F]  how many keys each feature has

The schema's metadata holds ``wire``, ``schema_fingerprint``, ``label_names`` (JSON), and where the
message stands: ``epoch``, ``sequence``, ``watermark_ms``, ``sent_at_ms``. Columns and metadata that a
newer writer adds are passed over. Wire 1, which had one ``label`` column and no rates, is still read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.features import RaggedKeys
from recsys.interactions import UNNAMED_LABEL, ExampleBatch, plain_examples
from streaming.errors import WireError

WIRE_VERSION = 2
_ZSTD = pa.ipc.IpcWriteOptions(compression="zstd")

Mark = tuple[int, int]
"""(epoch, sequence) of a message: within a partition, what does not rise above the last is void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleMessage:
    """A batch, and where it stands in the output of its partition's joiners.

    A message of no rows is a fence: with it a joiner's new life begins, and what an earlier life writes
    behind it is void.
    """

    batch: ExampleBatch
    epoch: int = 0
    """Rises with each life of the partition's joiner."""
    sequence: int
    """Rises by 1 within an epoch."""
    watermark_ms: int = 0
    """How far event time had come when it was sent; 0: unknown."""
    sent_at_ms: int = 0
    """Wall clock of the joiner; 0: unknown."""

    @property
    def mark(self) -> Mark:
        """What a reader must compare with the highest that it has seen in the partition."""
        return (self.epoch, self.sequence)


def no_examples(schema_fingerprint: int = 0) -> ExampleBatch:
    """A batch of no rows."""
    return plain_examples(
        example_id_B=np.empty(0, np.uint64),
        event_time_ms_B=np.empty(0, np.int64),
        label_B=np.empty(0, np.float32),
        keys=RaggedKeys(np.empty(0, np.uint64), np.empty((0, 1), np.uint8)),
        schema_fingerprint=schema_fingerprint,
    )


def encode_examples(message: ExampleMessage) -> bytes:
    """Bytes of one message."""
    batch = message.batch
    n_labels, n_features = len(batch.label_names), batch.keys.lengths_NF.shape[1]
    columns = {
        "example_id": pa.array(batch.example_id_B),
        "request_id": pa.array(batch.request_id_B, pa.string()),
        "user_id": pa.array(batch.user_id_B),
        "item_id": pa.array(batch.item_id_B),
        "event_time_ms": pa.array(batch.event_time_ms_B),
        "domain": pa.array(batch.domain_B, pa.string()),
        "model_version": pa.array(batch.model_version_B, pa.string()),
        "labels": _lists(batch.label_BL, n_labels),
        "sample_rates": _lists(batch.sample_rate_BL, n_labels),
        "weight": pa.array(batch.weight_B),
        "delay_ms": pa.array(batch.delay_ms_B),
        "is_late": pa.array(batch.is_late_B),
        "is_fast": pa.array(batch.is_fast_B),
        "score": pa.array(batch.score_B),
        "feature_keys": pa.ListArray.from_arrays(
            batch.keys.offsets.astype(np.int32), pa.array(batch.keys.keys_T)
        ),
        "feature_lengths": _lists(batch.keys.lengths_NF, n_features),
    }
    metadata = {
        "wire": str(WIRE_VERSION),
        "schema_fingerprint": str(batch.schema_fingerprint),
        "label_names": json.dumps(batch.label_names),
        "epoch": str(message.epoch),
        "sequence": str(message.sequence),
        "watermark_ms": str(message.watermark_ms),
        "sent_at_ms": str(message.sent_at_ms),
    }
    schema = _schema(n_labels, n_features).with_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_ZSTD) as writer:
        writer.write_batch(pa.record_batch([columns[name] for name in schema.names], schema=schema))
    return bytes(sink.getvalue())


def decode_examples(value: bytes) -> ExampleMessage:
    """The message. Raises WireError with the reason."""
    try:
        with pa.ipc.open_stream(value) as reader:
            rows = reader.read_next_batch()
        rows.validate(full=True)
        metadata = {key.decode(): text.decode() for key, text in (rows.schema.metadata or {}).items()}
        wire = int(metadata["wire"])
        if wire not in _READERS:
            raise WireError(f"example batch of wire {wire}, want one of {sorted(_READERS)}")
        return ExampleMessage(
            batch=_READERS[wire](rows, metadata),
            epoch=int(metadata.get("epoch", 0)),
            sequence=int(metadata["sequence"]),
            watermark_ms=int(metadata.get("watermark_ms", 0)),
            sent_at_ms=int(metadata.get("sent_at_ms", 0)),
        )
    except (pa.ArrowException, StopIteration, OSError, KeyError, ValueError, ShapeError) as error:
        raise WireError(f"no example batch in {len(value)} bytes: {error!r}") from error


def _schema(n_labels: int, n_features: int) -> pa.Schema:
    return pa.schema(
        [
            ("example_id", pa.uint64()),
            ("request_id", pa.string()),
            ("user_id", pa.uint64()),
            ("item_id", pa.uint64()),
            ("event_time_ms", pa.int64()),
            ("domain", pa.string()),
            ("model_version", pa.string()),
            ("labels", pa.list_(pa.float32(), n_labels)),
            ("sample_rates", pa.list_(pa.float32(), n_labels)),
            ("weight", pa.float32()),
            ("delay_ms", pa.int64()),
            ("is_late", pa.bool_()),
            ("is_fast", pa.bool_()),
            ("score", pa.float32()),
            ("feature_keys", pa.list_(pa.uint64())),
            ("feature_lengths", pa.list_(pa.uint8(), n_features)),
        ]
    )


def _first_schema(n_features: int) -> pa.Schema:
    """The columns of wire 1."""
    return pa.schema(
        [
            ("example_id", pa.uint64()),
            ("user_id", pa.uint64()),
            ("item_id", pa.uint64()),
            ("event_time_ms", pa.int64()),
            ("domain", pa.string()),
            ("label", pa.float32()),
            ("score", pa.float32()),
            ("feature_keys", pa.list_(pa.uint64())),
            ("feature_lengths", pa.list_(pa.uint8(), n_features)),
        ]
    )


def _read_second(rows: pa.RecordBatch, metadata: Mapping[str, str]) -> ExampleBatch:
    names = tuple(map(str, json.loads(metadata["label_names"])))
    rows = _checked(rows, _schema(len(names), _width(rows, "feature_lengths")))
    return ExampleBatch(
        example_id_B=_numbers(rows, "example_id"),
        request_id_B=rows.column("request_id").to_pylist(),
        user_id_B=_numbers(rows, "user_id"),
        item_id_B=_numbers(rows, "item_id"),
        event_time_ms_B=_numbers(rows, "event_time_ms"),
        domain_B=rows.column("domain").to_pylist(),
        model_version_B=rows.column("model_version").to_pylist(),
        label_names=names,
        label_BL=_matrix(rows, "labels"),
        sample_rate_BL=_matrix(rows, "sample_rates"),
        weight_B=_numbers(rows, "weight"),
        delay_ms_B=_numbers(rows, "delay_ms"),
        is_late_B=rows.column("is_late").to_numpy(zero_copy_only=False),
        is_fast_B=rows.column("is_fast").to_numpy(zero_copy_only=False),
        score_B=_numbers(rows, "score"),
        keys=_keys(rows),
        schema_fingerprint=int(metadata["schema_fingerprint"]),
    )


def _read_first(rows: pa.RecordBatch, metadata: Mapping[str, str]) -> ExampleBatch:
    rows = _checked(rows, _first_schema(_width(rows, "feature_lengths")))
    n = len(rows)
    return ExampleBatch(
        example_id_B=_numbers(rows, "example_id"),
        request_id_B=[""] * n,
        user_id_B=_numbers(rows, "user_id"),
        item_id_B=_numbers(rows, "item_id"),
        event_time_ms_B=_numbers(rows, "event_time_ms"),
        domain_B=rows.column("domain").to_pylist(),
        model_version_B=[""] * n,
        label_names=UNNAMED_LABEL,
        label_BL=_numbers(rows, "label").reshape(n, 1),
        sample_rate_BL=np.ones((n, 1), np.float32),
        weight_B=np.ones(n, np.float32),
        delay_ms_B=np.zeros(n, np.int64),
        is_late_B=np.zeros(n, np.bool_),
        is_fast_B=np.zeros(n, np.bool_),
        score_B=_numbers(rows, "score"),
        keys=_keys(rows),
        schema_fingerprint=int(metadata["schema_fingerprint"]),
    )


_READERS = {1: _read_first, 2: _read_second}


def _checked(rows: pa.RecordBatch, want: pa.Schema) -> pa.RecordBatch:
    """The columns that this reader knows, all full and of the right type."""
    known = rows.select([name for name in want.names if name in rows.schema.names])
    if not known.schema.remove_metadata().equals(want):
        raise WireError(f"example batch has columns {rows.schema.names}; write it with encode_examples")
    if any(column.null_count for column in known.columns):
        raise WireError("example batch has empty cells")
    return known


def _width(rows: pa.RecordBatch, name: str) -> int:
    kind = rows.schema.field(name).type
    if not pa.types.is_fixed_size_list(kind):
        raise WireError(f"example batch: {name} is {kind}, want lists of one size")
    return int(kind.list_size)


def _lists(matrix: NDArray[Any], width: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), width)


def _numbers(rows: pa.RecordBatch, name: str) -> NDArray[Any]:
    numbers: NDArray[Any] = rows.column(name).to_numpy()
    return numbers


def _matrix(rows: pa.RecordBatch, name: str) -> NDArray[Any]:
    column = rows.column(name)
    values: NDArray[Any] = column.flatten().to_numpy()
    return values.reshape(len(rows), column.type.list_size)


def _keys(rows: pa.RecordBatch) -> RaggedKeys:
    lengths_BF = _matrix(rows, "feature_lengths")
    feature_keys = rows.column("feature_keys")
    if (lengths_BF.sum(axis=1) != feature_keys.value_lengths().to_numpy()).any():
        raise WireError("example batch: feature_lengths do not add up to the keys of their rows")
    return RaggedKeys(feature_keys.flatten().to_numpy(), lengths_BF)
