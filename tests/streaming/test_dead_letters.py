"""Dead letters are shown once, sent again once, and keep what a newer writer put in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ConfigError
from streaming.dead_letters import read_dead_letters, send_again
from streaming.errors import SourceUnavailable
from streaming.events import decode_dead_letter, encode_dead_letter
from streaming.memory_log import LogSource, MemoryLog
from streaming.proto import event_pb2
from streaming.source import Record
from streaming.topics import DEAD_LETTER, DELTAS, EXAMPLES, FEEDBACK, IMPRESSIONS

PLACES = st.tuples(st.sampled_from([IMPRESSIONS, FEEDBACK]), st.integers(0, 2), st.integers(0, 5))


def log_of(places):
    log = MemoryLog()
    for at_ms, place in enumerate(places):
        record = Record(*place, b"key-%d" % place[2], b"payload-%d" % place[2])
        log.publish(DEAD_LETTER, b"", encode_dead_letter(record, f"why {place}", rejected_at_ms=at_ms))
    return log


def waiting(log):
    return read_dead_letters(log.source([(DEAD_LETTER, 0)]))


@given(st.lists(PLACES, max_size=12))
def test_a_message_that_several_readers_rejected_is_shown_once_at_its_first_rejection(places):
    letters = waiting(log_of(places))
    assert [letter.place for letter in letters] == list(dict.fromkeys(places))
    assert [letter.rejected_at_ms for letter in letters] == [places.index(letter.place) for letter in letters]


@given(st.lists(PLACES, max_size=12), st.sets(st.integers(0, 5)))
def test_what_was_sent_again_is_not_sent_a_second_time_even_when_it_is_rejected_once_more(places, chosen):
    log = log_of(places)
    send_again([letter for letter in waiting(log) if letter.place[2] in chosen], log, now_ms=99)
    for place in places:
        record = Record(*place, b"", b"")
        log.publish(DEAD_LETTER, b"", encode_dead_letter(record, "again", rejected_at_ms=100))
    assert {letter.place for letter in waiting(log)} == {place for place in places if place[2] not in chosen}


def test_a_message_goes_back_to_its_partition_with_its_key_and_its_bytes():
    log = log_of([(FEEDBACK, 2, 4)])
    send_again(waiting(log), log, now_ms=99)
    source = log.source([(FEEDBACK, number) for number in range(3)])
    (sent,) = source.poll(max_records=10, timeout_s=0)
    assert sent[1:] == (2, 0, b"key-4", b"payload-4")


@pytest.mark.parametrize("topic", [EXAMPLES, DELTAS])
def test_what_its_readers_would_pass_over_is_not_sent_again_and_goes_on_waiting(topic):
    log = log_of([(FEEDBACK, 0, 1), (topic, 0, 2)])
    with pytest.raises(ConfigError, match=f"messages of {topic} are not sent again: .*; leave it out"):
        send_again(waiting(log), log, now_ms=99)
    assert (log.end((FEEDBACK, 0)), log.end((topic, 0))) == (0, 0)
    send_again([letter for letter in waiting(log) if letter.refusal is None], log, now_ms=99)
    assert [letter.place for letter in waiting(log)] == [(topic, 0, 2)]


def test_where_the_broker_goes_away_half_way_reading_ends_with_an_error():
    class Away(LogSource):
        def poll(self, **_):
            return []

    with pytest.raises(SourceUnavailable, match=r"reading stands at .* want .*; try again later"):
        read_dead_letters(Away(log_of([(FEEDBACK, 0, 1)]), [(DEAD_LETTER, 0)]))


def test_bytes_that_are_no_dead_letter_are_passed_over():
    log = log_of([(FEEDBACK, 0, 1)])
    log.publish(DEAD_LETTER, b"", b"\xff\xff")
    assert [letter.place for letter in waiting(log)] == [(FEEDBACK, 0, 1)]


def test_a_letter_keeps_the_key_of_its_message():
    record = Record("topic", 3, 17, b"user-1", b"?")
    assert decode_dead_letter(encode_dead_letter(record, "why", rejected_at_ms=5))[0] == record


@given(
    st.sampled_from([event_pb2.Impression, event_pb2.Feedback, event_pb2.DeadLetter]),
    st.binary(max_size=50),
    st.integers(100, 1000),
)
def test_fields_of_a_newer_writer_survive_a_round_trip(message, payload, number):
    # Field ``number``, wire type 2: a length and so many bytes.
    tag = number << 3 | 2
    unknown = bytes([tag & 0x7F | 0x80, tag >> 7, len(payload)]) + payload
    assert unknown in message.FromString(unknown).SerializeToString()
