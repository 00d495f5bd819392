"""One replica as a process of its own, behind a wire that loses, doubles and swaps deltas.

    python replica_program.py BOOTSTRAP SNAPSHOT_FOLDER FAULT_SHARE SEED

Prints a line of JSON a few times a second: what it serves of some keys, and how far it has followed.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import crc32c
import numpy as np

from infra.model_sources import FolderSource
from infra.recipes.movielens import movielens
from infra.wiring.recipes import make_scorer
from recsys.features import RaggedKeys
from recsys.table.table import EmbeddingTable
from serving.follower import FollowerConfig, ReplicaFollower
from serving.replica import Replica
from streaming.deltas import DeltaSubscriber
from streaming.kafka import KafkaConfig, KafkaSource
from streaming.source import EventSource, Partition, Record
from streaming.topics import DELTAS

RECIPE = movielens()
PROBED = np.arange(300, dtype=np.uint64)
PROBE_PERIOD_S = 0.03


class FaultySource:
    """An EventSource over another one that drops, doubles or swaps a share of the records."""

    def __init__(self, source: EventSource, share: float, seed: int) -> None:
        self._source, self._share, self._random = source, share, random.Random(seed)
        self.faults = 0

    def poll(self, *, max_records: int, timeout_s: float) -> list[Record]:
        records: list[Record] = []
        for record in self._source.poll(max_records=max_records, timeout_s=timeout_s):
            fault = None
            if self._random.random() < self._share:
                fault = self._random.choice(["drop", "double", "swap"])
                self.faults += 1
            if fault != "drop":
                records += [record] * (1 + (fault == "double"))
            if fault == "swap":
                records[-2:] = records[-2:][::-1]
        return records

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        self._source.seek(offsets)

    def positions(self) -> dict[Partition, int]:
        return self._source.positions()

    def end_offsets(self) -> dict[Partition, int]:
        return self._source.end_offsets()


def digest(table: EmbeddingTable) -> int:
    """Of all keys and rows."""
    keys = table.keys()
    checksum: int = crc32c.crc32c(keys.tobytes() + table.lookup(keys).tobytes())
    return checksum


def main() -> None:
    bootstrap, folder, share, seed = sys.argv[1:]
    # Small fetches at once: a delta a poll gives the faults many places to strike.
    kafka = KafkaConfig(bootstrap=bootstrap, fetch_least_bytes=1)
    source = FaultySource(KafkaSource(kafka, [(DELTAS, 0)]), float(share), int(seed))
    replica = Replica(lambda: make_scorer(RECIPE), RECIPE.schema.fingerprint, codec=RECIPE.wire_codec)
    follower = ReplicaFollower(
        replica,
        DeltaSubscriber(source),
        FolderSource(Path(folder)),
        FollowerConfig(check_period_s=0.5, quiet_s=20.0),
    )
    follower.start()
    n_features = len(RECIPE.schema.features)
    request = RaggedKeys(PROBED[: 4 * n_features], np.ones((4, n_features), np.uint8))
    replica.ready.wait()
    while True:
        now = replica.parameters
        before = now.table_sequence
        rows = now.table.lookup(PROBED)
        after = now.table_sequence
        probe = {
            "incarnation": now.manifest.incarnation,
            "before": before,
            "after": after,
            "rows": rows.tobytes().hex(),
            "as_of_ms": now.as_of_ms,
            "digest": digest(now.table),
            "scores": replica.score(request).tolist(),
            "status": follower.status.value,
            "outcomes": {outcome.value: count for outcome, count in follower.outcomes.items()},
            "faults": source.faults,
        }
        print(json.dumps(probe), flush=True)  # noqa: T201
        time.sleep(PROBE_PERIOD_S)


if __name__ == "__main__":
    main()
