"""What applying a seal a second does to the time of a request."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
from document import Figure

from recsys.features import RaggedKeys
from recsys.ranking.learner import RankingLearner
from serving.replica import Replica
from streaming.memory_log import MemoryLog
from streaming.topics import DELTAS
from sync.subjects import (
    MICRO_BATCH,
    SEED,
    apply,
    keys_of,
    new_learner,
    replica_of,
    seal,
    spread,
    sync_of,
    teach,
)
from training.sync import DeltaSync

CANDIDATES = 200


def serving_figures(turns: int) -> list[Figure]:
    """Scoring times without sync and beside it; each turn's p99, and their ratio."""
    random = np.random.default_rng(SEED)
    learner = new_learner([keys_of(MICRO_BATCH, random) for _ in range(2_000)])
    log = MemoryLog()
    sync = sync_of(learner, log, "fp32")
    seal(sync)
    replica, requests = replica_of(learner, sync), [keys_of(CANDIDATES, random) for _ in range(300)]
    quantiles: dict[str, list[tuple[float, float]]] = {"quiet": [], "syncing": []}
    for turn in range(turns):
        for name in sorted(quantiles, reverse=bool(turn % 2)):
            values = next_seals(sync, learner, log, random, 3) if name == "syncing" else []
            is_over = threading.Event()
            beside = threading.Thread(target=apply_each_second, args=(replica, values, is_over))
            beside.start()
            took_ms = score_for(3.0, replica, requests)
            is_over.set()
            beside.join()
            quantiles[name].append((np.quantile(took_ms, 0.5), np.quantile(took_ms, 0.99)))
    quiet, syncing = (np.array(quantiles[name]) for name in ("quiet", "syncing"))
    return [
        spread("serving_p50_quiet", quiet[:, 0].tolist(), "ms"),
        spread("serving_p99_quiet", quiet[:, 1].tolist(), "ms"),
        spread("serving_p99_syncing", syncing[:, 1].tolist(), "ms"),
        spread("serving_p99_ratio", (syncing[:, 1] / quiet[:, 1]).tolist(), "ratio", bar=("<=", 1.5)),
    ]


def score_for(seconds: float, replica: Replica, requests: list[RaggedKeys]) -> list[float]:
    """Milliseconds of each request."""
    took_ms: list[float] = []
    end = time.perf_counter() + seconds
    for request in itertools.cycle(requests):
        begun = time.perf_counter()
        replica.score(request)
        ended = time.perf_counter()
        took_ms.append(1e3 * (ended - begun))
        if ended >= end:
            return took_ms
    return took_ms


def apply_each_second(replica: Replica, seals: list[list[bytes]], is_over: threading.Event) -> None:
    for number, values in enumerate(seals):
        if is_over.wait(0.5 if number == 0 else 1.0):
            # What the turn had no time for must still come before the next turn's.
            is_over = threading.Event()
        apply(replica, values)


def next_seals(
    sync: DeltaSync, learner: RankingLearner, log: MemoryLog, random: np.random.Generator, count: int
) -> list[list[bytes]]:
    """The messages of some seals, one after another."""
    seals = []
    for _ in range(count):
        teach(learner, random)
        position = sync.position()
        seal(sync)
        seals.append([record.value for record in log.read((DELTAS, 0), position, sync.position())])
    return seals
