"""Messages that no reader could read: which there are, and sending them again once a reader can."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.errors import WireError
from streaming.events import decode_dead_letter, encode_replay_mark, is_replay_mark
from streaming.sink import EventSink
from streaming.source import EventSource, Record
from streaming.topics import DEAD_LETTER

log = logging.getLogger(__name__)

Place = tuple[str, int, int]
"""(topic, partition, offset): where a message stood that could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One message that could not be read, as it came."""

    record: Record
    reason: str
    rejected_at_ms: int
    """Wall clock of the first reader that gave up."""

    @property
    def place(self) -> Place:
        """Where it stood; the same message is the same place."""
        return self.record.topic, self.record.partition, self.record.offset


def read_dead_letters(source: EventSource) -> list[DeadLetter]:
    """All that wait in the dead-letter topic, oldest first, each once, without those sent again.

    Reads ``source`` from where it stands to its present end. Raises SourceUnavailable.
    """
    ends = source.end_offsets()
    letters: dict[Place, DeadLetter] = {}
    replayed: set[Place] = set()
    while any(source.positions()[at] < end for at, end in ends.items()):
        for stored in source.poll(max_records=500, timeout_s=1.0):
            try:
                record, reason, rejected_at_ms = decode_dead_letter(stored.value)
                is_mark = is_replay_mark(stored.value)
            except WireError as error:
                log.warning("dead_letter_skipped", extra={"offset": stored.offset, "reason": str(error)})
                continue
            letter = DeadLetter(record=record, reason=reason, rejected_at_ms=rejected_at_ms)
            if is_mark:
                replayed.add(letter.place)
            else:
                # A reader that restarts writes the same letter again.
                letters.setdefault(letter.place, letter)
    waiting = [letter for place, letter in letters.items() if place not in replayed]
    return sorted(waiting, key=lambda letter: letter.rejected_at_ms)


def send_again(letters: Sequence[DeadLetter], sink: EventSink, *, now_ms: int) -> None:
    """Publish each message to the partition it came from, under its key, then remember that it was.

    A crash in between sends it twice; readers drop repeats by event id. Raises SinkUnavailable.
    """
    for letter in letters:
        record = letter.record
        sink.publish(record.topic, record.key, record.value, partition=record.partition)
    sink.flush()
    for letter in letters:
        sink.publish(DEAD_LETTER, b"", encode_replay_mark(letter.record, replayed_at_ms=now_ms))
    sink.flush()
