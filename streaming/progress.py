"""Where a joiner stands: a small file that a restart begins from."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from streaming.errors import StreamingError
from streaming.source import Partition
from streaming.watermarks import WatermarkState


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Everything before ``positions`` has done its work; the rest must be read again."""

    positions: dict[Partition, int]
    """Of the inputs."""
    output_offset: int
    """Examples made from what comes after ``positions`` lie at or after this offset."""
    next_sequence: int
    """No example batch in the output has this number or a higher one, up to the time of writing."""
    watermark: WatermarkState
    """As of the time of writing: windows that had closed by then are in the output already."""


def write_progress(path: Path, progress: Progress) -> None:
    """Replace ``path`` at once: a crash leaves the old file or the new one."""
    document = {
        "positions": _named(progress.positions),
        "output_offset": progress.output_offset,
        "next_sequence": progress.next_sequence,
        "fronts_ms": _named(progress.watermark.fronts_ms),
        "watermark_ms": progress.watermark.watermark_ms,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read_progress(path: Path) -> Progress | None:
    """What was written last; None where nothing was. Raises StreamingError for another file."""
    try:
        document = json.loads(path.read_text())
        return Progress(
            positions=_partitions(document["positions"]),
            output_offset=int(document["output_offset"]),
            next_sequence=int(document["next_sequence"]),
            watermark=WatermarkState(
                fronts_ms=_partitions(document["fronts_ms"]), watermark_ms=int(document["watermark_ms"])
            ),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StreamingError(
            f"{path} is no joiner progress: {error!r}; delete it to join the whole log again"
        ) from error


def _named(numbers: dict[Partition, int]) -> dict[str, int]:
    return {f"{topic}/{number}": value for (topic, number), value in numbers.items()}


def _partitions(numbers: dict[str, int]) -> dict[Partition, int]:
    split = ((name.rpartition("/"), value) for name, value in numbers.items())
    return {(topic, int(number)): int(value) for (topic, _, number), value in split}
