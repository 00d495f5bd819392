"""Where a partition's joiner stands: what its state is committed with, and a restart begins from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np

from streaming.errors import StreamingError
from streaming.example_wire import Mark
from streaming.source import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinMarks:
    """Everything before ``positions`` is in the state; its statements lie before ``output_offset``."""

    positions: dict[Partition, int]
    """Of the inputs."""
    output_offset: int
    """A restart reads the output from here, to learn what was stated after this commit."""
    mark: Mark
    """The highest up to which the state knows the output: what does not rise above it is void, or known."""
    held_until_ms: int = 0
    """Event time of the newest statement that was ever held back."""
    held_ids: set[int] = field(default_factory=set)
    """Statements of earlier lives that have not come up again yet."""
    held_keys: set[int] = field(default_factory=set)
    """The items that these are about."""


def encode_marks(marks: JoinMarks) -> bytes:
    """Bytes that ``decode_marks`` reads: a line of JSON, then the ids and keys as little-endian integers."""
    positions = {f"{topic}/{number}": offset for (topic, number), offset in marks.positions.items()}
    head = {
        "positions": positions,
        "output_offset": marks.output_offset,
        "mark": marks.mark,
        "held_until_ms": marks.held_until_ms,
        "held_ids": len(marks.held_ids),
    }
    held = np.array([*marks.held_ids, *marks.held_keys], "<u8").tobytes()
    return json.dumps(head).encode() + b"\n" + held


def decode_marks(value: bytes) -> JoinMarks:
    """The marks. Raises StreamingError for other bytes."""
    line, _, tail = value.partition(b"\n")
    try:
        head, held = json.loads(line), np.frombuffer(tail, "<u8").tolist()
        split = ((name.rpartition("/"), offset) for name, offset in head["positions"].items())
        epoch, sequence = head["mark"]
        return JoinMarks(
            positions={(topic, int(number)): int(offset) for (topic, _, number), offset in split},
            output_offset=int(head["output_offset"]),
            mark=(int(epoch), int(sequence)),
            held_until_ms=int(head["held_until_ms"]),
            held_ids=set(held[: head["held_ids"]]),
            held_keys=set(held[head["held_ids"] :]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StreamingError(
            f"{value[:80]!r} are no marks of a joiner: {error!r}; clear its state to join the log again"
        ) from error
