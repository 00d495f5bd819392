"""Time the joiner, wire included, and print one JSON document.

    python benchmarks/bench_joiner.py [--quick]

Figures are items shown per second of the joiner process's CPU, with 16 features an item, three items
in ten answered, and examples leaving at once. "memory" is without a broker, "broker" with the
embedded one (the client's threads count, the broker's process does not).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from document import Figure, print_document

from infra.broker import EmbeddedBroker
from recsys.features import RaggedKeys
from recsys.interactions import Feedback, Impression
from streaming.events import encode_feedback, encode_impression
from streaming.joiner import JoinerConfig, JoinWorker
from streaming.kafka import KafkaConfig, KafkaSink, KafkaSource, create_topics
from streaming.label_join import JoinConfig, LabelRule
from streaming.memory_log import MemoryLog
from streaming.sink import EventSink
from streaming.source import EventSource
from streaming.topics import ALL_TOPICS, EXAMPLES, FEEDBACK, IMPRESSIONS

SEED = 0
N_FEATURES = 16
ANSWERED = 0.3
BARS = {1: 20_000, 10: 60_000}
INPUTS = [(IMPRESSIONS, 0), (FEEDBACK, 0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 items instead of 200,000")
    n_items = 20_000 if parser.parse_args().quick else 200_000
    figures = []
    for items_each, bar in BARS.items():
        for log_name, rate in (
            ("memory", memory_rate(items_each, n_items)),
            ("broker", broker_rate(items_each, n_items)),
        ):
            figures.append(
                Figure(
                    name=f"join_{items_each}_items_each_{log_name}",
                    value=round(rate),
                    unit="items/s",
                    bar=f">= {bar}" if log_name == "broker" else None,
                    holds=rate >= bar if log_name == "broker" else None,
                    low=None,
                    high=None,
                )
            )
    print_document("joiner", figures, seeds=[SEED])


def memory_rate(items_each: int, n_items: int) -> float:
    """Items a second over a log in memory."""
    log = MemoryLog()
    fill(log, items_each, n_items)
    return rate(log.source(INPUTS), log, log.source([(EXAMPLES, 0)]), n_items)


def broker_rate(items_each: int, n_items: int) -> float:
    """Items a second over the embedded broker."""
    with EmbeddedBroker() as broker:
        create_topics(broker.bootstrap, dict.fromkeys(ALL_TOPICS, 1))
        config = KafkaConfig(bootstrap=broker.bootstrap)
        sink = KafkaSink(config)
        fill(sink, items_each, n_items)
        source, output = KafkaSource(config, INPUTS), KafkaSource(config, [(EXAMPLES, 0)])
        answer = rate(source, sink, output, n_items)
        for client in (source, output, sink):
            client.close()
    return answer


def fill(sink: EventSink, items_each: int, n_items: int) -> None:
    """Publish the events, a millisecond of event time apart."""
    for topic, value in events(items_each, n_items):
        sink.publish(topic, b"request-key", value, partition=0)
    sink.flush()


def events(items_each: int, n_items: int) -> Iterator[tuple[str, bytes]]:
    """Impressions, feedback a little later, and heartbeats that close every window."""
    random = np.random.default_rng(SEED)
    keys = RaggedKeys(
        random.integers(0, 2**63, items_each * N_FEATURES).astype(np.uint64),
        np.ones((items_each, N_FEATURES), np.uint8),
    )
    ones_K = np.ones(items_each, np.float32)
    items_K = np.arange(items_each, dtype=np.uint64)
    for request in range(n_items // items_each):
        yield (
            IMPRESSIONS,
            encode_impression(impression(f"request-{request:016d}", request, items_K, ones_K, keys)),
        )
        for item in np.flatnonzero(random.random(items_each) < ANSWERED).tolist():
            yield FEEDBACK, encode_feedback(feedback(f"request-{request:016d}", request + 20, item, "click"))
    yield (
        IMPRESSIONS,
        encode_impression(
            impression("", 10**9, items_K[:0], ones_K[:0], RaggedKeys(keys.keys_T[:0], keys.lengths_NF[:0]))
        ),
    )
    yield FEEDBACK, encode_feedback(feedback("", 10**9, 0, ""))


def impression(
    request_id: str, time_ms: int, items_K: np.ndarray, ones_K: np.ndarray, keys: RaggedKeys
) -> Impression:
    """One impression of these items."""
    return Impression(
        request_id=request_id,
        user_id=time_ms,
        event_time_ms=time_ms,
        domain="home",
        policy="greedy",
        model_version="ranker.1",
        schema_fingerprint=1,
        item_ids_K=items_K,
        scores_K=ones_K,
        propensities_K=ones_K,
        keys=keys,
    )


def feedback(request_id: str, time_ms: int, item: int, kind: str) -> Feedback:
    """One feedback, with an id of its own."""
    return Feedback(
        event_id=time_ms * 64 + item,
        request_id=request_id,
        user_id=time_ms,
        item_id=item,
        kind=kind,
        value=1.0,
        event_time_ms=time_ms,
    )


def rate(source: EventSource, sink: EventSink, output: EventSource, n_items: int) -> float:
    """Items joined per second of CPU, until every item has left."""
    join = JoinConfig(label=LabelRule(kind="click"), wait_window_ms=5_000, allowed_disorder_ms=100)
    with tempfile.TemporaryDirectory() as folder:
        config = JoinerConfig(join=join, progress_path=Path(folder) / "progress.json")
        worker = JoinWorker(source, sink, output, config, clock_ms=lambda: time.time_ns() // 10**6)
        worker.recover()
        started_s = time.process_time()
        while worker.counters.positives + worker.counters.negatives < n_items:
            worker.run_round()
        sink.flush()
        return n_items / (time.process_time() - started_s)


if __name__ == "__main__":
    main()
