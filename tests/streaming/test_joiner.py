"""The joiner's process over a log in memory: every example leaves exactly once, whatever dies when."""

from __future__ import annotations

from contextlib import nullcontext, suppress
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
from streaming.errors import SinkUnavailable, SourceUnavailable, StreamingError
from streaming.events import decode_dead_letter, encode_feedback, encode_impression
from streaming.example_wire import decode_examples
from streaming.inputs import FixedInputs
from streaming.join_marks import JoinMarks, decode_marks, encode_marks
from streaming.join_rules import JoinConfig, JoinRules, LabelRule
from streaming.joiner import JoinerConfig, JoinWorker
from streaming.label_join import LabelJoin
from streaming.memory_log import MemoryLog
from streaming.partition_joiner import BatchConfig
from streaming.spill import RocksStore
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


class OwnedInputs(FixedInputs):
    """Inputs of a group that has given them to somebody else, once ``is_owner`` is False."""

    is_owner = True

    def commit(self, offsets):
        if not self.is_owner:
            raise SourceUnavailable("not a member")


class LogConnections:
    """A joiner's connections to a log in memory."""

    def __init__(self, log, sink, assignment):
        self.source, self.sink = OwnedInputs(log.source(INPUTS), assignment), sink
        self.open_output = lambda at: nullcontext(log.source([at]))

    def close(self):
        pass


def worker(log, folder, clock, *, emit="at_once", sink=None, on_progress=lambda progress: None, **changes):
    batches = BatchConfig(
        batch_rows=changes.pop("batch_rows", 4),
        linger_ms=changes.pop("linger_ms", 1),
        heartbeat_ms=changes.pop("heartbeat_ms", 10**6),
        batch_bytes=changes.pop("batch_bytes", 1 << 20),
    )
    config = JoinConfig(
        rules=JoinRules(labels=(LabelRule(kind="click", at_least=1.0, wait_ms=WAIT_MS),), emit=emit),
        skew_ms=10,
        allowed_disorder_ms=25,
    )
    sink = sink or FailingSink(log)
    return JoinWorker(
        lambda assignment: LogConnections(log, sink, assignment),
        lambda number: LabelJoin(config, INPUTS, RocksStore(folder / str(number))),
        JoinerConfig(
            batches=batches,
            **{"poll_records": 6, "poll_timeout_s": 0.001, "tick_period_ms": 5, "commit_period_ms": 3}
            | changes,
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
    yield IMPRESSIONS, impression(0, 900_000, items=())
    yield FEEDBACK, feedback(0, 900_000, kind="")


def publish(log, events, count):
    for topic, value in islice(events, count):
        log.publish(topic, b"", value)


def output(log):
    """(example id, label) of the valid messages in log order, and their marks."""
    rows, marks = [], [(0, -1)]
    for record in log.read((EXAMPLES, 0), 0, 10**9):
        message = decode_examples(record.value)
        if message.mark > marks[-1]:
            marks.append(message.mark)
            batch = message.batch
            rows += zip(batch.example_id_B.tolist(), batch.label_B.tolist(), strict=True)
    return rows, marks[1:]


def rounds(joiner, clock, count, *, log=None, events=()):
    """Rounds of one millisecond, with four more events before each."""
    for _ in range(count):
        clock.now_ms += 1
        publish(log, events, 4)
        joiner.run_round()


def output_after(lives, folder, emit):
    """What is in the log after joiners that ran so many rounds, or died at a record, one after another."""
    log, clock, events = MemoryLog(), Clock(), recorded_events(30)
    for n_rounds, dies_at, arrives in [*lives, (60, 10**9, 0)]:
        joiner = worker(log, folder, clock, emit=emit, sink=FailingSink(log, dies_at, arrives))
        with suppress(SinkUnavailable):
            rounds(joiner, clock, n_rounds, log=log, events=events)
        joiner.disconnect()
    return output(log)


@cache
def undisturbed(emit):
    with TemporaryDirectory() as folder:
        return output_after([], Path(folder), emit)[0]


@settings(max_examples=12)
@given(
    lives=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 25), st.integers(0, 3)), max_size=6),
    emit=st.sampled_from(["at_once", "in_order"]),
)
# Two restarts within one backlog; a copy whose first has been forgotten.
@example(lives=[(14, 10**6, 0), (13, 10**6, 0)], emit="at_once")
@example(lives=[(15, 10**6, 1)], emit="at_once")
def test_killed_anywhere_the_output_is_that_of_an_undisturbed_run(tmp_path_factory, lives, emit):
    rows, marks = output_after(lives, tmp_path_factory.mktemp("joiner"), emit)
    assert len(rows) >= 60
    assert sorted(rows) == sorted(undisturbed(emit))
    if emit == "in_order":
        assert rows == undisturbed(emit)
    assert all(later > earlier for earlier, later in pairwise(marks))


@settings(max_examples=12)
@given(st.integers(1, 25), st.integers(1, 12), st.booleans())
@example(n_rounds=6, n_together=4, is_same_state=True)
def test_what_an_earlier_owner_writes_behind_its_successors_fence_counts_for_nobody(
    tmp_path_factory, n_rounds, n_together, is_same_state
):
    log, clock, events = MemoryLog(), Clock(), recorded_events(30)
    folders = [tmp_path_factory.mktemp("own") for _ in range(3)]
    first, second = (worker(log, folder, clock) for folder in folders[:2])
    rounds(first, clock, n_rounds, log=log, events=events)
    first._connections.source.is_owner = False
    for _ in range(n_together):
        rounds(second, clock, 1, log=log, events=events)
        # It does not know yet: it joins and publishes, and only its commit is refused.
        with suppress(SourceUnavailable):
            rounds(first, clock, 1)
        first._connections.sink.flush()
    second.disconnect()
    third = worker(log, folders[1 if is_same_state else 2], clock)
    rounds(third, clock, 72, log=log, events=events)
    assert sorted(output(log)[0]) == sorted(undisturbed("at_once"))
    for joiner in (first, third):
        joiner.disconnect()


def test_once_all_windows_are_past_a_restart_reads_nothing_again(tmp_path):
    log, clock = MemoryLog(), Clock()
    joiner = worker(log, tmp_path, clock)
    rounds(joiner, clock, 60, log=log, events=recorded_events(30))
    end = log.end((EXAMPLES, 0))
    joiner.disconnect()
    store = RocksStore(tmp_path / "0")
    marks = decode_marks(LabelJoin(JoinConfig(rules=RULES), INPUTS, store).restore())
    assert marks.positions == {at: log.end(at) for at in INPUTS}
    assert marks.output_offset == end
    store.close()


RULES = JoinRules(labels=(LabelRule(kind="click", at_least=1.0, wait_ms=WAIT_MS),))


def test_an_undecodable_message_goes_to_the_dead_letters_and_the_rest_goes_on(tmp_path):
    log, clock = MemoryLog(), Clock()
    log.publish(IMPRESSIONS, b"", b"\xff\xff")
    log.publish(IMPRESSIONS, b"", impression(1, 0))
    log.publish(FEEDBACK, b"", feedback(1, 3))
    joiner = worker(log, tmp_path, clock)
    rounds(joiner, clock, 8)
    (letter,) = log.read((DEAD_LETTER, 0), 0, 9)
    record, reason, rejected_at_ms = decode_dead_letter(letter.value)
    assert (record.topic, record.offset, record.value) == (IMPRESSIONS, 0, b"\xff\xff")
    assert reason.startswith("no Impression in 2 bytes")
    assert rejected_at_ms == 1_000_001
    assert joiner.progress.counters.rejected == 1
    assert [label for _, label in output(log)[0]] == [1.0]
    joiner.disconnect()


def test_an_event_from_a_clock_far_ahead_goes_to_the_dead_letters_and_moves_no_time(tmp_path):
    log, clock = MemoryLog(), Clock()
    log.publish(IMPRESSIONS, b"", impression(1, clock.now_ms + 10**9))
    log.publish(IMPRESSIONS, b"", impression(2, 0))
    log.publish(FEEDBACK, b"", feedback(2, 3))
    joiner = worker(log, tmp_path, clock)
    rounds(joiner, clock, 8)
    (letter,) = log.read((DEAD_LETTER, 0), 0, 9)
    assert "ahead" in decode_dead_letter(letter.value)[1]
    assert [label for _, label in output(log)[0]] == [1.0]
    joiner.disconnect()


def test_examples_of_two_feature_schemas_travel_in_batches_of_their_own(tmp_path):
    log, clock = MemoryLog(), Clock()
    for request in range(4):
        log.publish(IMPRESSIONS, b"", impression(request, request))
        log.publish(FEEDBACK, b"", feedback(request, request))
    joiner = worker(log, tmp_path, clock, poll_records=100, batch_rows=100)
    rounds(joiner, clock, 3)
    sent = [decode_examples(record.value).batch for record in log.read((EXAMPLES, 0), 0, 99)]
    assert [batch.schema_fingerprint for batch in sent if len(batch)] == [0, 1, 0, 1]
    joiner.disconnect()


def test_when_all_falls_silent_the_last_windows_close_by_the_wall_clock(tmp_path):
    log, clock, seen = MemoryLog(), Clock(), []
    log.publish(IMPRESSIONS, b"", impression(1, 500, items=(1,)))
    log.publish(FEEDBACK, b"", feedback(0, 500, kind=""))
    joiner = worker(
        log,
        tmp_path,
        clock,
        on_progress=lambda progress: seen.append((progress.status, progress.lag_records)),
    )
    rounds(joiner, clock, WAIT_MS + 20)
    assert output(log)[0] == []
    rounds(joiner, clock, 30)
    assert [label for _, label in output(log)[0]] == [0.0]
    assert seen[-1] == ("joining", 0)
    joiner.disconnect()


def test_an_idle_joiner_still_says_how_far_event_time_has_come(tmp_path):
    log, clock = MemoryLog(), Clock()
    log.publish(IMPRESSIONS, b"", impression(0, 500, items=()))
    log.publish(FEEDBACK, b"", feedback(0, 500, kind=""))
    joiner = worker(log, tmp_path, clock, heartbeat_ms=10)
    rounds(joiner, clock, 45)
    sent = [decode_examples(record.value) for record in log.read((EXAMPLES, 0), 0, 99)]
    assert len(sent) == 5
    assert all(not len(message.batch) for message in sent)
    watermarks = [message.watermark_ms for message in sent]
    assert watermarks == sorted(watermarks)
    assert watermarks[-1] > 475
    joiner.disconnect()


def test_a_stopped_joiner_has_sent_and_committed_what_it_joined(tmp_path):
    log, clock = MemoryLog(), Clock()
    publish(log, recorded_events(10), 20)
    joiner = worker(log, tmp_path, clock, batch_rows=100, linger_ms=500, commit_period_ms=10**6)
    rounds(joiner, clock, 2)
    assert output(log)[0] == []
    joiner.stop()
    joiner._save()
    assert len(output(log)[0]) > 0
    joiner.disconnect()


def test_time_in_which_the_broker_was_away_is_no_silence(tmp_path):
    log, clock = MemoryLog(), Clock()
    log.publish(IMPRESSIONS, b"", impression(0, 500, items=()))
    log.publish(FEEDBACK, b"", feedback(0, 500, kind=""))
    joiner = worker(log, tmp_path, clock)
    rounds(joiner, clock, 10)
    joiner.disconnect()
    clock.now_ms += 60_000
    rounds(joiner, clock, 10)
    log.publish(IMPRESSIONS, b"", impression(1, 510, items=(1,)))
    log.publish(FEEDBACK, b"", feedback(1, 515))
    rounds(joiner, clock, 10)
    joiner.disconnect()
    assert [label for _, label in output(log)[0]] == [1.0]


def test_what_is_held_back_is_committed_so_that_a_second_restart_reads_little(tmp_path):
    log, clock, events = MemoryLog(), Clock(), recorded_events(30)
    first = worker(log, tmp_path, clock, commit_period_ms=10**6)
    rounds(first, clock, 12, log=log, events=events)
    first._joiners[0]._publish(first._joiners[0].join.take())
    first._connections.sink.flush()
    first.disconnect()
    second = worker(log, tmp_path, clock, poll_records=1, commit_period_ms=1)
    rounds(second, clock, 3, log=log, events=events)
    end = log.end((EXAMPLES, 0))
    second.disconnect()
    store = RocksStore(tmp_path / "0")
    marks = decode_marks(LabelJoin(JoinConfig(rules=RULES), INPUTS, store).restore())
    store.close()
    assert marks.output_offset == end
    assert len(marks.held_ids) > 0
    third = worker(log, tmp_path, clock)
    rounds(third, clock, 60, log=log, events=events)
    third.disconnect()
    assert sorted(output(log)[0]) == sorted(undisturbed("at_once"))


def test_rows_that_are_too_large_for_one_message_go_as_several(tmp_path):
    log, clock = MemoryLog(), Clock()
    for request in range(0, 8, 2):
        log.publish(IMPRESSIONS, b"", impression(request, request))
        for item in (1, 2):
            log.publish(FEEDBACK, b"", feedback(request, request, item))
    small = worker(log, tmp_path, clock, poll_records=100, batch_rows=100, batch_bytes=1)
    rounds(small, clock, 3)
    small.disconnect()
    sent = [record.value for record in log.read((EXAMPLES, 0), 0, 99)]
    assert sum(bool(len(decode_examples(value).batch)) for value in sent) == 8
    assert [label for _, label in output(log)[0]] == [1.0] * 8


class SteppingClock(Clock):
    """Wall time that goes on by a millisecond whenever it is read."""

    def __call__(self):
        self.now_ms += 1
        return self.now_ms


def test_a_broker_that_is_away_is_waited_for_and_nothing_is_lost(tmp_path):
    log, seen = MemoryLog(), []
    publish(log, recorded_events(30), 10**6)
    failing = [FailingSink(log, dies_at, 1) for dies_at in (3, 1, 9)]

    def told(progress):
        seen.append(progress.status)
        if len(output(log)[0]) == len(undisturbed("at_once")):
            joiner.stop()

    joiner = worker(log, tmp_path, SteppingClock(), longest_wait_s=0.01, on_progress=told)
    joiner._connect = lambda assignment: LogConnections(
        log, failing.pop(0) if failing else FailingSink(log), assignment
    )
    joiner.run()
    assert seen.count("broker_away") == 3
    assert sorted(output(log)[0]) == sorted(undisturbed("at_once"))


def test_a_state_of_something_else_is_refused(tmp_path):
    with pytest.raises(StreamingError, match="are no marks of a joiner"):
        decode_marks(b'{"positions": 3}')


@given(
    st.dictionaries(
        st.tuples(st.sampled_from([IMPRESSIONS, FEEDBACK]), st.integers(0, 99)), st.integers(0, 9)
    ),
    st.tuples(st.integers(0, 2**62), st.integers(-1, 2**62)),
    st.sets(st.integers(0, 2**64 - 1)),
    st.sets(st.integers(0, 2**64 - 1)),
)
def test_marks_survive_being_written(positions, mark, held_ids, held_keys):
    marks = JoinMarks(
        positions=positions,
        output_offset=7,
        mark=mark,
        held_until_ms=5,
        held_ids=held_ids,
        held_keys=held_keys,
    )
    assert decode_marks(encode_marks(marks)) == marks


def test_strange_bytes_in_the_output_do_not_stop_a_restart(tmp_path):
    log, clock = MemoryLog(), Clock()
    log.publish(EXAMPLES, b"", b"somebody else's bytes")
    log.publish(IMPRESSIONS, b"", impression(1, 0))
    log.publish(FEEDBACK, b"", feedback(1, 3))
    joiner = worker(log, tmp_path, clock)
    rounds(joiner, clock, 5)
    sent = [decode_examples(record.value).batch for record in log.read((EXAMPLES, 0), 1, 9)]
    assert [batch.label_B.tolist() for batch in sent if len(batch)] == [[1.0]]
    joiner.disconnect()
