"""What is known of one request while its feedback may come, and its bytes on disk.

A label of an item is in one of these states; the first is that of a new item.

    WAITING ── feedback ──▶ ANSWERED ── end of the wait ──▶ STATED
       │└───── feedback, where one decides at once ────────▶ STATED
       └────── end of the wait ──▶ NEGATIVE_SENT, NEGATIVE_DROPPED ── late feedback ──▶ STATED

Axes: K items of one impression, L labels; a slot is position * L + label.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from recsys.interactions import Feedback
from streaming.errors import StateUnavailable
from streaming.shown import Shown

WAITING, ANSWERED, NEGATIVE_SENT, NEGATIVE_DROPPED, STATED, ABSENT = range(6)
"""ABSENT: an item that an earlier impression of the request has shown already."""

Answer = tuple[float, int, int]
"""(value, event time, event id) of a feedback, or of several combined."""

_VERSION = 1
_HEAD = struct.Struct("<BqqIII")
_PART = struct.Struct("<HIII")
_ANSWER = struct.Struct("<IdqQ")
_FEEDBACK = struct.Struct("<QQQdqH")
_ID = struct.Struct("<Q")
_OBJECT_BYTES = 1700
_ITEM_BYTES = 130


@dataclass(slots=True, eq=False)
class Part:
    """One impression of a request and what has become of its items."""

    shown: Shown
    states: bytearray
    """By slot."""
    closed: int = 0
    """Bits of the labels whose wait has ended."""
    answers: dict[int, Answer] = field(default_factory=dict)
    """By slot: in-time feedback that is stated when the wait ends."""
    late: dict[int, Answer] = field(default_factory=dict)
    """By slot: feedback dated after the wait's end that came before it."""


@dataclass(slots=True, eq=False)
class Window:
    """All that is known of one request."""

    request_id: str
    due_ms: int = 0
    """When something happens to it next."""
    forget_ms: int = 0
    parts: list[Part] = field(default_factory=list)
    event_ids: set[int] = field(default_factory=set)
    """Of the feedback that changed something."""
    early: list[Feedback] = field(default_factory=list)
    """Feedback whose item has not been shown yet."""
    armed_ms: int | None = None
    """``due_ms`` as the store's timers know it. The store's, as are the next three."""
    saved_due_ms: int | None = None
    """``due_ms`` as committed; None where the window has not been."""
    saved_parts: int = 0
    cached_bytes: int = 0

    @property
    def newest_ms(self) -> int:
        """Event time of the newest impression, or of the newest feedback that waits for one."""
        if self.parts:
            return max(part.shown.event_time_ms for part in self.parts)
        return max((feedback.event_time_ms for feedback in self.early), default=self.due_ms)


def memory_bytes(window: Window) -> int:
    """Memory that the window takes, near enough for a bound on many."""
    total = _OBJECT_BYTES + 80 * len(window.event_ids) + 400 * len(window.early)
    for part in window.parts:
        shown = part.shown
        total += len(shown.raw) + len(shown.feature_keys) + len(shown.feature_lengths)
        total += _ITEM_BYTES * len(shown.item_ids) + 200 * (len(part.answers) + len(part.late))
    return total


def encode_window(window: Window) -> bytes:
    """Everything but the impressions themselves, which do not change."""
    chunks = [
        _HEAD.pack(
            _VERSION,
            window.due_ms,
            window.forget_ms,
            len(window.parts),
            len(window.event_ids),
            len(window.early),
        )
    ]
    for part in window.parts:
        chunks.append(_PART.pack(part.closed, len(part.states), len(part.answers), len(part.late)))
        chunks.append(bytes(part.states))
        for answers in (part.answers, part.late):
            chunks += [_ANSWER.pack(slot, *answer) for slot, answer in answers.items()]
    chunks += map(_ID.pack, window.event_ids)
    for feedback in window.early:
        kind = feedback.kind.encode()
        chunks.append(
            _FEEDBACK.pack(
                feedback.event_id,
                feedback.user_id,
                feedback.item_id,
                feedback.value,
                feedback.event_time_ms,
                len(kind),
            )
        )
        chunks.append(kind)
    return b"".join(chunks)


def parts_of(value: bytes) -> int:
    """How many impressions belong to a window's bytes. Raises StateUnavailable."""
    if len(value) < _HEAD.size or value[0] != _VERSION:
        raise StateUnavailable(
            f"a window of version {value[:1].hex()} and {len(value)} bytes, want version {_VERSION}; "
            "the state is damaged or a newer joiner's: move it away and join the log again"
        )
    n_parts: int = _HEAD.unpack_from(value)[3]
    return n_parts


def decode_window(request_id: str, value: bytes, impressions: list[Shown]) -> Window:
    """The window of ``encode_window``, with its impressions. Raises StateUnavailable."""
    n_parts = parts_of(value)
    _, due_ms, forget_ms, _, n_ids, n_early = _HEAD.unpack_from(value)
    window = Window(request_id, due_ms, forget_ms, armed_ms=due_ms, saved_due_ms=due_ms, saved_parts=n_parts)
    try:
        at = _HEAD.size
        for shown in impressions:
            at = _read_part(window, shown, value, at)
        window.event_ids.update(struct.unpack_from(f"<{n_ids}Q", value, at))
        at += n_ids * _ID.size
        for _ in range(n_early):
            at = _read_early(window, value, at)
    except struct.error as error:
        raise StateUnavailable(f"window of {request_id!r} is damaged: {error}") from error
    return window


def _read_part(window: Window, shown: Shown, value: bytes, at: int) -> int:
    closed, n_states, n_answers, n_late = _PART.unpack_from(value, at)
    at += _PART.size
    part = Part(shown, bytearray(value[at : at + n_states]), closed)
    at += n_states
    for answers, count in ((part.answers, n_answers), (part.late, n_late)):
        for _ in range(count):
            slot, *answer = _ANSWER.unpack_from(value, at)
            answers[slot] = (answer[0], answer[1], answer[2])
            at += _ANSWER.size
    window.parts.append(part)
    return at


def _read_early(window: Window, value: bytes, at: int) -> int:
    event_id, user_id, item_id, amount, event_time_ms, n_kind = _FEEDBACK.unpack_from(value, at)
    at += _FEEDBACK.size
    end: int = at + n_kind
    window.early.append(
        Feedback(
            event_id=event_id,
            request_id=window.request_id,
            user_id=user_id,
            item_id=item_id,
            kind=value[at:end].decode(),
            value=amount,
            event_time_ms=event_time_ms,
        )
    )
    return end
