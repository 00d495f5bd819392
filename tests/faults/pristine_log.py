"""The delta log as the trainer wrote it: what a replica may serve, and when."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import crc32c
import numpy as np

from infra.recipes.movielens import movielens
from recsys.snapshots import read_manifest, read_table, snapshots
from recsys.table.native import NativeTable
from streaming.deltas import TableDelta, decode_delta
from streaming.row_codecs import RowCodec
from streaming.source import EventSource

RECIPE = movielens()
DIM = RECIPE.table.dim


@dataclass(slots=True)
class PristineLog:
    """Every version of every row, as the trainer wrote them into the log. Used from one thread."""

    source: EventSource
    folder: Path
    sequences: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    versions: dict[tuple[int, int], list[tuple[int, bytes]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    starts: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def read(self) -> None:
        codec = RowCodec.of(RECIPE.wire_codec, RECIPE.table)
        for record in self.source.poll(max_records=500, timeout_s=0.01):
            delta = decode_delta(record.value)
            if not isinstance(delta, TableDelta):
                continue
            self.sequences[delta.incarnation].append(delta.sequence)
            rows = codec.unpack(delta.rows) if len(delta.updated_keys) else ()
            for key, row in zip(delta.updated_keys.tolist(), rows, strict=True):
                self.versions[delta.incarnation, key].append((delta.sequence, row.tobytes()))
            for key in delta.expired_keys.tolist():
                self.versions[delta.incarnation, key].append((delta.sequence, bytes(4 * DIM)))

    def _begin(self, incarnation: int) -> None:
        """A start of the trainer begins with the rows of its first snapshot, taken after one seal."""
        if incarnation == 1 or incarnation in self.starts:
            return
        named = {path: read_manifest(path) for path in snapshots(self.folder)}
        first = [
            path for path, one in named.items() if (one.incarnation, one.table_sequence) == (incarnation, 1)
        ]
        if first:
            table = NativeTable(RECIPE.table)
            read_table(first[0], table)
            keys = table.keys()
            rows = map(np.ndarray.tobytes, table.lookup(keys))
            self.starts[incarnation] = dict(zip(keys.tolist(), rows, strict=True))

    def has(self, incarnation: int, sequence: int) -> bool:
        """Whether all that a probe at this place may show has been read."""
        self._begin(incarnation)
        is_begun = incarnation == 1 or incarnation in self.starts
        known = self.sequences.get(incarnation, [])
        return is_begun and bool(known) and known[-1] > sequence

    def allowed(self, incarnation: int, key: int, before: int, after: int) -> set[bytes]:
        """What a row may be while a replica goes from one sequence to another: the next may be under way."""
        known = self.sequences[incarnation]
        place = bisect_right(known, after)
        last = known[place] if place < len(known) else after
        versions = self.versions.get((incarnation, key), [])
        start = self.starts.get(incarnation, {}).get(key, bytes(4 * DIM))
        old = [row for sequence, row in versions if sequence <= before]
        return {old[-1] if old else start} | {row for sequence, row in versions if before < sequence <= last}

    def newest(self) -> tuple[int, int, int]:
        """The last incarnation, its last sequence, and a digest of all its rows."""
        incarnation = max(self.sequences)
        rows = dict(self.starts.get(incarnation, {}))
        for (start, key), versions in self.versions.items():
            if start == incarnation:
                rows[key] = versions[-1][1]
        content = sorted((key, row) for key, row in rows.items() if any(row))
        keys = np.array([key for key, _ in content], np.uint64)
        checksum = crc32c.crc32c(keys.tobytes() + b"".join(row for _, row in content))
        return incarnation, self.sequences[incarnation][-1], checksum
