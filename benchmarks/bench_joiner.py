"""Time the join, wire included, and print one JSON document.

    python benchmarks/bench_joiner.py [--quick]

Figures are items shown per second of one process's CPU (background threads of the store included), from
encoded messages to encoded example batches, with 16 features an item and three items in ten answered.
"memory": the state stays in the cache. "spilled": most requests lie on disk only, and have to be read
from there when their feedback comes and again when their wait ends; "share" is the share of them that lay
there when the state was committed, which was once a second.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from document import Figure, print_document

from recsys.features import RaggedKeys
from recsys.interactions import Feedback, Impression
from streaming.events import decode_feedback, decode_shown, encode_feedback, encode_impression
from streaming.example_wire import ExampleMessage, encode_examples, no_examples
from streaming.join_rules import JoinConfig, JoinRules, LabelRule
from streaming.label_join import LabelJoin
from streaming.shown import assemble
from streaming.spill import RocksStore
from streaming.topics import FEEDBACK, IMPRESSIONS

SEED = 0
N_FEATURES = 16
ANSWERED = 0.3
BATCH_ROWS = 512
FEEDBACK_AFTER = 0.5
"""Share of the wait after which feedback comes."""


class Load(NamedTuple):
    """One way to run the join."""

    name: str
    items_each: int
    n_items: int
    waiting: int
    """Requests that wait at a time: the wait, at a millisecond of event time each."""
    cached: int
    """Of them, those that the cache holds."""
    bar: int


def loads(*, is_quick: bool) -> tuple[Load, ...]:
    """What is timed; the quick form of the spilled one commits more often, to have as much on disk."""
    scale = 1 if is_quick else 4
    return (
        Load("join_10_items_each_memory", 10, 100_000 * scale, 5_000, 10**6, 60_000),
        Load("join_1_items_each_memory", 1, 50_000 * scale, 5_000, 10**6, 20_000),
        Load("join_10_items_each_spilled", 10, 300_000 * scale, 15_000 * scale, 300 * scale, 20_000),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the items")
    figures = []
    for load in loads(is_quick=parser.parse_args().quick):
        rate, spilled = measure(load)
        holds = rate >= load.bar
        figures.append(_figure(load.name, round(rate), "items/s", bar=f">= {load.bar}", holds=holds))
        if spilled:
            figures.append(_figure(f"{load.name}_share", round(spilled, 3), "ratio", bar=None, holds=None))
    print_document("joiner", figures, seeds=[SEED])


def measure(load: Load) -> tuple[float, float]:
    """Items joined per second of CPU, commits once a second included; share of requests on disk only."""
    wait_ms = load.waiting
    config = JoinConfig(
        rules=JoinRules(labels=(LabelRule(kind="click", wait_ms=wait_ms),)),
        allowed_disorder_ms=100,
        cache_horizon_ms=load.cached,
    )
    messages = list(events(load.items_each, load.n_items, feedback_after_ms=round(FEEDBACK_AFTER * wait_ms)))
    shares: list[float] = []
    n_sent = 0
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        join = LabelJoin(config, [(IMPRESSIONS, 0), (FEEDBACK, 0)], RocksStore(Path(folder)))
        started_s = committed_s = time.process_time()
        for number, (topic, value) in enumerate(messages):
            if topic == IMPRESSIONS:
                join.add_shown((IMPRESSIONS, 0), decode_shown(value), received_at_ms=1 << 40)
            else:
                join.add_feedback((FEEDBACK, 0), decode_feedback(value), received_at_ms=1 << 40)
            if number % 128:
                continue
            n_sent += send(join)
            if time.process_time() - committed_s > 1.0 or join.wants_commit:
                join.commit(b"marks")
                n_windows = join.windows_on_disk + join.windows_in_memory
                if n_windows > 0.9 * load.waiting:
                    shares.append(join.windows_on_disk / n_windows)
                committed_s = time.process_time()
        n_sent += send(join)
        join.commit(b"marks")
        spent_s = time.process_time() - started_s
        join.close()
    if n_sent != load.n_items:
        raise SystemExit(f"{n_sent} rows of {load.n_items} items: the benchmark does not measure the join")
    return load.n_items / spent_s, float(np.mean(shares or [0.0]))


def warm_up() -> None:
    """Arrow imports pandas at the first batch."""
    encode_examples(ExampleMessage(batch=no_examples(), sequence=0))


def send(join: LabelJoin) -> int:
    """Encode what was made, in batches; how many rows."""
    rows = join.take()
    for start in range(0, len(rows), BATCH_ROWS):
        batch = assemble(rows[start : start + BATCH_ROWS], ("click",))
        encode_examples(ExampleMessage(batch=batch, sequence=0))
    return len(rows)


def events(items_each: int, n_items: int, *, feedback_after_ms: int) -> Iterator[tuple[str, bytes]]:
    """Impressions a millisecond apart, feedback later, and heartbeats that close every window."""
    random = np.random.default_rng(SEED)
    keys = RaggedKeys(
        random.integers(0, 2**63, items_each * N_FEATURES).astype(np.uint64),
        np.ones((items_each, N_FEATURES), np.uint8),
    )
    n_requests = n_items // items_each
    is_answered = random.random((n_requests, items_each)) < ANSWERED
    for time_ms in range(n_requests + feedback_after_ms):
        if time_ms < n_requests:
            yield IMPRESSIONS, encode_impression(impression(time_ms, keys))
        if time_ms >= feedback_after_ms:
            for item in np.flatnonzero(is_answered[time_ms - feedback_after_ms]).tolist():
                yield FEEDBACK, encode_feedback(feedback(time_ms - feedback_after_ms, time_ms, item, "click"))
    no_keys = RaggedKeys(keys.keys_T[:0], keys.lengths_NF[:0])
    yield IMPRESSIONS, encode_impression(impression(10**9, no_keys))
    yield FEEDBACK, encode_feedback(feedback(0, 10**9, 0, ""))


def impression(time_ms: int, keys: RaggedKeys) -> Impression:
    """The request of this time, with one item for each row of keys."""
    ones_K = np.ones(len(keys), np.float32)
    return Impression(
        request_id=f"request-{time_ms:016d}",
        user_id=time_ms,
        event_time_ms=time_ms,
        domain="home",
        policy="greedy",
        model_version="ranker.1",
        schema_fingerprint=1,
        item_ids_K=np.arange(len(keys), dtype=np.uint64),
        scores_K=ones_K,
        propensities_K=ones_K,
        keys=keys,
    )


def feedback(request: int, time_ms: int, item: int, kind: str) -> Feedback:
    """One feedback, with an id of its own."""
    return Feedback(
        event_id=request * 64 + item,
        request_id=f"request-{request:016d}",
        user_id=request,
        item_id=item,
        kind=kind,
        value=1.0,
        event_time_ms=time_ms,
    )


def _figure(name: str, value: float, unit: str, *, bar: str | None, holds: bool | None) -> Figure:
    return Figure(name=name, value=value, unit=unit, bar=bar, holds=holds, low=None, high=None)


if __name__ == "__main__":
    main()
