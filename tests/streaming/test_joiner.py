"""The joiner's process over a log in memory: every example leaves exactly once, whatever dies when."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.features import RaggedKeys
from recsys.interactions import Feedback, Impression
from streaming.errors import SinkUnavailable, StreamingError
from streaming.events import (
    decode_dead_letter,
    encode_feedback,
    encode_impression,
)
from streaming.example_wire import decode_examples
from streaming.joiner import JoinerConfig, JoinWorker
from streaming.label_join import JoinConfig, LabelRule
from streaming.memory_log import MemoryLog
from streaming.progress import read_progress
from streaming.topics import DEAD_LETTER, EXAMPLES, FEEDBACK, IMPRESSIONS

INPUTS = [(IMPRESSIONS, 0), (FEEDBACK, 0)]
WAIT_MS = 50


def impression(request, time_ms, items=(1, 2)):
    n = len(items)
    return encode_impression(
        Impression(
            request_id=f"r{request}",
            user_id=request,
            event_time_ms=time_ms,
            schema_fingerprint=request % 2,
            item_ids_K=np.array(items, np.uint64),
            scores_K=np.zeros(n, np.float32),
            propensities_K=np.ones(n, np.float32),
            keys=RaggedKeys(np.arange(2 * n, dtype=np.uint64), np.ones((n, 2), np.uint8)),
        )
    )


def feedback(request, time_ms, item=1, kind="click"):
    return encode_feedback(
        Feedback(
            event_id=request * 10 + item,
            request_id=f"r{request}",
            user_id=request,
            item_id=item,
            kind=kind,
            value=1.0,
            event_time_ms=time_ms,
        )
    )


class Clock:
    """Wall time that moves only when told."""

    now_ms = 1_000_000

    def __call__(self):
        return self.now_ms


class FailingSink:
    """A log whose writer is killed at the n-th record; what was not flushed arrives in part."""

    def __init__(self, log, dies_at=10**9, arrives=0):
        self._log, self._left, self._arrives = log, dies_at, arrives
        self._buffer = []

    def publish(self, topic, key, value, *, partition=None):
        self._left -= 1
        if self._left < 0:
            for record in self._buffer[: self._arrives]:
                self._log.publish(*record[:3], partition=record[3])
            raise SinkUnavailable("killed")
        self._buffer.append((topic, key, value, partition))

    def flush(self):
        for topic, key, value, partition in self._buffer:
            self._log.publish(topic, key, value, partition=partition)
        self._buffer.clear()

    def position(self, topic, partition):
        return self._log.position(topic, partition)


def worker(log, path, clock, *, emit="at_once", sink=None, on_progress=lambda counters, lag: None, **changes):
    settings_ = {
        "poll_records": 6,
        "batch_rows": 4,
        "linger_ms": 1,
        "tick_period_ms": 5,
        "progress_period_ms": 3,
    }
    return JoinWorker(
        log.source(INPUTS),
        sink or FailingSink(log),
        log.source([(EXAMPLES, 0)]),
        JoinerConfig(
            join=JoinConfig(
                label=LabelRule(kind="click"),
                wait_window_ms=WAIT_MS,
                orphan_window_ms=10,
                allowed_disorder_ms=25,
                emit=emit,
            ),
            progress_path=path,
            **settings_ | changes,
        ),
        clock_ms=clock,
        on_progress=on_progress,
    )


def recorded_events(n_requests):
    """Requests 7 ms apart; two of three are clicked, some after the window. Copies come three requests
    later, half of them with a time of their own. In the end all windows close."""
    for request in range(n_requests):
        yield IMPRESSIONS, impression(request, 7 * request)
        if request % 4 == 1 and request > 3:
            first = request - 3
            yield IMPRESSIONS, impression(first, 7 * (request if request % 8 == 1 else first))
        for _ in range((request % 3 > 0) + (request % 6 == 1)):
            yield FEEDBACK, feedback(request, 7 * request + 9 * (request % 8))
    yield IMPRESSIONS, impression(0, 10**6, items=())
    yield FEEDBACK, feedback(0, 10**6, kind="")


def publish(log, events, count):
    for topic, value in islice(events, count):
        log.publish(topic, b"", value)


def output(log):
    """(example id, label) in log order, and the batch numbers."""
    records = log.read((EXAMPLES, 0), 0, 10**9)
    messages = [decode_examples(record.value) for record in records]
    rows = [
        row
        for batch in (message.batch for message in messages)
        for row in zip(batch.example_id_B.tolist(), batch.label_B.tolist(), strict=True)
    ]
    return rows, [message.sequence for message in messages]


def rounds(joiner, clock, count, *, log=None, events=()):
    """Rounds of one millisecond, with four more events before each."""
    for _ in range(count):
        clock.now_ms += 1
        publish(log, events, 4)
        joiner.run_round()


def output_after(lives, path, emit):
    """What is in the log after joiners that ran so many rounds, or died at a record, one after another."""
    log, clock, events = MemoryLog(), Clock(), recorded_events(30)
    for n_rounds, dies_at, arrives in [*lives, (60, 10**9, 0)]:
        joiner = worker(log, path, clock, emit=emit, sink=FailingSink(log, dies_at, arrives))
        with suppress(SinkUnavailable):
            joiner.recover()
            rounds(joiner, clock, n_rounds, log=log, events=events)
    return output(log)


@cache
def undisturbed(emit):
    with TemporaryDirectory() as folder:
        return output_after([], Path(folder) / "progress.json", emit)[0]


@settings(max_examples=40)
@given(
    lives=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 25), st.integers(0, 3)), max_size=6),
    emit=st.sampled_from(["at_once", "in_order"]),
)
# Two restarts within one backlog; a copy whose first has been forgotten.
@example(lives=[(14, 10**6, 0), (13, 10**6, 0)], emit="at_once")
@example(lives=[(15, 10**6, 1)], emit="at_once")
def test_killed_anywhere_the_output_is_that_of_an_undisturbed_run(tmp_path_factory, lives, emit):
    rows, sequences = output_after(lives, tmp_path_factory.mktemp("joiner") / "progress.json", emit)
    assert len(rows) == 60
    assert sorted(rows) == sorted(undisturbed(emit))
    if emit == "in_order":
        assert rows == undisturbed(emit)
    assert all(later > earlier for earlier, later in pairwise(sequences))


def test_once_all_windows_are_past_a_restart_reads_nothing_again(tmp_path):
    log, clock, path = MemoryLog(), Clock(), tmp_path / "progress.json"
    joiner = worker(log, path, clock)
    joiner.recover()
    rounds(joiner, clock, 60, log=log, events=recorded_events(30))
    progress = read_progress(path)
    assert progress.positions == {at: log.end(at) for at in INPUTS}
    assert progress.output_offset == log.end((EXAMPLES, 0))


def test_an_undecodable_message_goes_to_the_dead_letters_and_the_rest_goes_on(tmp_path):
    log, clock = MemoryLog(), Clock()
    log.publish(IMPRESSIONS, b"", b"\xff\xff")
    log.publish(IMPRESSIONS, b"", impression(1, 0))
    log.publish(FEEDBACK, b"", feedback(1, 3))
    joiner = worker(log, tmp_path / "p.json", clock)
    joiner.recover()
    rounds(joiner, clock, 5)
    (letter,) = log.read((DEAD_LETTER, 0), 0, 9)
    record, reason, rejected_at_ms = decode_dead_letter(letter.value)
    assert (record.topic, record.offset, record.value) == (IMPRESSIONS, 0, b"\xff\xff")
    assert reason.startswith("no Impression in 2 bytes")
    assert rejected_at_ms == 1_000_001
    assert joiner.counters.rejected == 1
    assert [label for _, label in output(log)[0]] == [1.0]


def test_examples_of_two_feature_schemas_travel_in_batches_of_their_own(tmp_path):
    log, clock = MemoryLog(), Clock()
    for request in range(4):
        log.publish(IMPRESSIONS, b"", impression(request, request))
        log.publish(FEEDBACK, b"", feedback(request, request))
    joiner = worker(log, tmp_path / "p.json", clock, poll_records=100, batch_rows=100)
    joiner.recover()
    rounds(joiner, clock, 3)
    batches = [decode_examples(record.value).batch for record in log.read((EXAMPLES, 0), 0, 99)]
    assert [batch.schema_fingerprint for batch in batches] == [0, 1, 0, 1]


def test_when_all_falls_silent_the_last_windows_close_by_the_wall_clock(tmp_path):
    log, clock, seen = MemoryLog(), Clock(), []
    log.publish(IMPRESSIONS, b"", impression(1, 500, items=(1,)))
    log.publish(FEEDBACK, b"", feedback(0, 500, kind=""))
    joiner = worker(log, tmp_path / "p.json", clock, on_progress=lambda counters, lag: seen.append(lag))
    joiner.recover()
    rounds(joiner, clock, WAIT_MS + 20)
    assert output(log)[0] == []
    rounds(joiner, clock, 30)
    assert [label for _, label in output(log)[0]] == [0.0]
    assert seen[-1] == 0


def test_a_stopped_joiner_has_sent_what_it_joined(tmp_path):
    log, clock = MemoryLog(), Clock()
    publish(log, recorded_events(10), 20)
    joiner = worker(log, tmp_path / "p.json", clock, batch_rows=100, linger_ms=500)
    joiner.recover()
    rounds(joiner, clock, 2)
    assert output(log)[0] == []
    joiner.stop()
    joiner.run()
    assert len(output(log)[0]) == joiner.counters.joined > 0


def test_a_progress_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "p.json").write_text('{"positions": 3}')
    with pytest.raises(StreamingError, match="is no joiner progress"):
        worker(MemoryLog(), tmp_path / "p.json", Clock()).recover()


def test_strange_bytes_in_the_output_do_not_stop_a_restart(tmp_path):
    log, clock = MemoryLog(), Clock()
    log.publish(EXAMPLES, b"", b"somebody else's bytes")
    log.publish(IMPRESSIONS, b"", impression(1, 0))
    log.publish(FEEDBACK, b"", feedback(1, 3))
    joiner = worker(log, tmp_path / "p.json", clock)
    joiner.recover()
    rounds(joiner, clock, 5)
    (record,) = log.read((EXAMPLES, 0), 1, 9)
    assert decode_examples(record.value).batch.label_B.tolist() == [1.0]
