"""Messages that no reader could read: which there are, and sending them again once a reader can."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from recsys.errors import ConfigError
from streaming.errors import SourceUnavailable, WireError
from streaming.events import decode_dead_letter, encode_replay_mark, is_replay_mark
from streaming.sink import EventSink
from streaming.source import EventSource, Record
from streaming.topics import DEAD_LETTER, DELTAS, EXAMPLES

log = logging.getLogger(__name__)

_MAX_EMPTY_POLLS = 30
_GO_BY_MARKS = (EXAMPLES, DELTAS)

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

    @property
    def refusal(self) -> str | None:
        """Why sending it again would reach nobody; None where it would."""
        if self.record.topic not in _GO_BY_MARKS:
            return None
        return (
            f"messages of {self.record.topic} are not sent again: their readers go by the sequence that each "
            "carries, and pass over one that comes later than its successors"
        )


def read_dead_letters(source: EventSource) -> list[DeadLetter]:
    """All that wait in the dead-letter topic, oldest first, each once, without those sent again.

    Reads ``source`` from where it stands to its present end. Raises SourceUnavailable, also
    where records that are there do not come.
    """
    ends = source.end_offsets()
    n_empty = 0
    letters: dict[Place, DeadLetter] = {}
    replayed: set[Place] = set()
    while any(source.positions()[at] < end for at, end in ends.items()):
        records = source.poll(max_records=500, timeout_s=1.0)
        n_empty = 0 if records else n_empty + 1
        if n_empty == _MAX_EMPTY_POLLS:
            raise SourceUnavailable(
                f"{DEAD_LETTER}: reading stands at {source.positions()}, want {ends}; try again later"
            )
        for stored in records:
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

    A crash in between sends it twice; readers drop repeats by event id. Raises SinkUnavailable, and
    ConfigError, with nothing sent, for a letter that has a ``refusal``.
    """
    for letter in letters:
        if letter.refusal is not None:
            raise ConfigError(f"{letter.refusal}; leave it out")
    for letter in letters:
        record = letter.record
        sink.publish(record.topic, record.key, record.value, partition=record.partition)
    sink.flush()
    for letter in letters:
        sink.publish(DEAD_LETTER, b"", encode_replay_mark(letter.record, replayed_at_ms=now_ms))
    sink.flush()
