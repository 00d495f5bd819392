"""One seal by itself: its bytes under each codec, its time at both ends, its memory."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pyarrow as pa
from document import Figure

from infra.wiring.recipes import make_table
from recsys.ranking.learner import RankingLearner
from streaming.memory_log import MemoryLog
from streaming.row_codecs import CodecName
from streaming.topics import DELTAS
from sync.subjects import (
    MIB,
    MICRO_BATCH,
    RECIPE,
    SEED,
    UPDATES,
    apply,
    keys_of,
    milliseconds,
    new_learner,
    one,
    replica_of,
    seal,
    spread,
    sync_of,
    teach,
)


def seal_figures(codec: CodecName, seals: int) -> list[Figure]:
    """Of one seal of 20,000 updates without a broker: bytes, and the time at both ends."""
    random = np.random.default_rng(SEED)
    learner, log = new_learner([keys_of(MICRO_BATCH, random) for _ in range(2_000)]), MemoryLog()
    sync = sync_of(learner, log, codec)
    seal(sync)
    replica = replica_of(learner, sync, codec)
    rows, sizes, packed, sealing_ms, applying_ms = [], [], [], [], []
    for _ in range(seals):
        teach(learner, random)
        position, sent = sync.position(), sync.rows_sent
        sealing_ms.append(milliseconds(partial(seal, sync)))
        values = [record.value for record in log.read((DELTAS, 0), position, sync.position())]
        applying_ms.append(milliseconds(partial(apply, replica, values)))
        rows.append((sync.rows_sent - sent) / UPDATES)
        sizes.append(sum(map(len, values)) / MIB)
        packed.append(sum(len(pa.compress(value, "zstd", asbytes=True)) for value in values) / MIB)
    return [
        spread(f"{codec}_touched_share", rows, "rows/update"),
        spread(f"{codec}_bytes_per_seal", sizes, "MiB"),
        spread(f"{codec}_bytes_per_seal_zstd", packed, "MiB"),
        spread(f"{codec}_seal", sealing_ms, "ms"),
        spread(f"{codec}_apply", applying_ms, "ms"),
    ]


class Nowhere:
    """An EventSink that keeps nothing, so that what is measured is the seal's own memory."""

    def publish(self, topic: str, key: bytes, value: bytes, *, partition: int | None = None) -> None:
        pass

    def flush(self) -> None:
        pass

    def position(self, topic: str, partition: int) -> int:
        return 0


def memory_figures() -> list[Figure]:
    """Peak of what Python and numpy hold more during a seal, by rows touched in a table of a million."""
    figures = []
    table = make_table(RECIPE)
    keys_N = np.arange(1_000_000, dtype=np.uint64)
    rows_ND = np.ones((len(keys_N), RECIPE.table.dim), np.float32)
    table.assign(keys_N, rows_ND)
    learner = RankingLearner(table, RECIPE.tower, RECIPE.pooling, RECIPE.adam)
    sync = sync_of(learner, Nowhere(), "fp32")
    for touched in (20_000, 200_000, 1_000_000):
        table.assign(keys_N[:touched], rows_ND[:touched])
        tracemalloc.start()
        seal(sync)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        figures.append(one(f"memory_of_a_seal_{touched}_rows", peak / MIB, "MiB"))
    return figures
