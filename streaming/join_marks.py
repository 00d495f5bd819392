"""Where a partition's joiner stands: what its state is committed with, and a restart begins from."""

from __future__ import annotations

import json
from dataclasses import dataclass

from streaming.errors import StreamingError
from streaming.source import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinMarks:
    """Everything before ``positions`` is in the state; its statements lie before ``output_offset``."""

    positions: dict[Partition, int]
    """Of the inputs."""
    output_offset: int
    """A restart reads the output from here, to learn what was stated after this commit."""
    epoch: int
    """Of the life that committed."""


def encode_marks(marks: JoinMarks) -> bytes:
    """Bytes that ``decode_marks`` reads."""
    positions = {f"{topic}/{number}": offset for (topic, number), offset in marks.positions.items()}
    return json.dumps(
        {
            "positions": positions,
            "output_offset": marks.output_offset,
            "epoch": marks.epoch,
        }
    ).encode()


def decode_marks(value: bytes) -> JoinMarks:
    """The marks. Raises StreamingError for other bytes."""
    try:
        document = json.loads(value)
        split = ((name.rpartition("/"), offset) for name, offset in document["positions"].items())
        return JoinMarks(
            positions={(topic, int(number)): int(offset) for (topic, _, number), offset in split},
            output_offset=int(document["output_offset"]),
            epoch=int(document["epoch"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StreamingError(
            f"{value[:80]!r} are no marks of a joiner: {error!r}; clear its state to join the log again"
        ) from error
