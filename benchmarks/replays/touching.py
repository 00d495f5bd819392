"""Replay D: which rows a sync has to carry, and what they weigh on the wire.

Axes: K rows of one seal, D columns of a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from recsys.table import FP16, FP32, Codec
from recsys.table.codecs import Int8Row, encode
from recsys.table.spec import TableSpec
from recsys.table.table import Changes, EmbeddingTable, Keys
from replays.models import Model
from replays.stream import Stream
from replays.syncing import learn_rows

CODECS: dict[str, Codec] = {"fp32": FP32(), "fp16": FP16(), "int8_row": Int8Row()}


@dataclass(slots=True)
class Interval:
    """Seals of one interval, and what they carried. One writer."""

    examples: int
    """Learned between two seals."""
    rows: list[int] = field(default_factory=list)
    """K of each seal."""
    share: list[float] = field(default_factory=list)
    """K over the rows that the table held then."""
    bytes: dict[str, list[int]] = field(default_factory=dict)
    """Of each seal, keys included, by codec; ``_zstd`` after compression."""

    def seal(self, table: EmbeddingTable, changes: Changes) -> None:
        """Note what a delta of these changes would carry."""
        keys_K = changes.touched_N
        self.rows.append(len(keys_K))
        self.share.append(len(keys_K) / max(len(table), 1))
        for name, codec in CODECS.items():
            payload = keys_K.tobytes() + packed(table, codec, keys_K)
            self.bytes.setdefault(name, []).append(len(payload))
            self.bytes.setdefault(f"{name}_zstd", []).append(len(pa.compress(payload, "zstd", asbytes=True)))

    def scores(self) -> dict[str, float]:
        """Means over the seals."""
        found = {"rows": float(np.mean(self.rows)), "touched_share": float(np.mean(self.share))}
        for name, sizes in self.bytes.items():
            found[f"{name}.bytes"] = float(np.mean(sizes))
            found[f"{name}.bytes_per_row"] = float(np.sum(sizes) / max(np.sum(self.rows), 1))
        return found


def packed(table: EmbeddingTable, codec: Codec, keys_K: Keys) -> bytes:
    """The rows of these keys, slice after slice, as a delta would hold them."""
    rows_KD = table.lookup(keys_K)
    parts, start = [], 0
    for dim in slice_dims(table.spec):
        parts.append(encode(codec, np.ascontiguousarray(rows_KD[:, start : start + dim])).tobytes())
        start += dim
    return b"".join(parts)


def slice_dims(spec: TableSpec) -> list[int]:
    """Columns of each slice of a row."""
    return [part.dim for part in spec.slices]


def seal_all(stream: Stream, model: Model, intervals: list[int]) -> list[Interval]:
    """Learn the stream once; from its middle on, note the seals of each interval (in examples)."""
    learner, begin = model.learner(), len(stream) // 2
    begin -= begin % model.micro_batch
    learn_rows(learner, stream, 0, begin, model.micro_batch)
    followers = {size: (learner.table.follow(), Interval(size)) for size in intervals}
    step = min(intervals)
    for start in range(begin, len(stream), step):
        learn_rows(learner, stream, start, min(start + step, len(stream)), model.micro_batch)
        learned = start + step - begin
        for size, (follower, interval) in followers.items():
            if learned % size == 0:
                interval.seal(learner.table, learner.table.drain(follower))
    return [interval for _, interval in followers.values()]


def growth_exponent(intervals: list[Interval]) -> float:
    """b of K ∝ interval^b, by least squares in logarithms: 1 where no id repeats."""
    x = np.log([interval.examples for interval in intervals])
    y = np.log([np.mean(interval.rows) for interval in intervals])
    return float(np.polyfit(x, y, 1)[0])
