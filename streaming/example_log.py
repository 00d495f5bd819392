"""One partition of the example topic as its joiners see it: who wrote what, and what of it counts.

A joiner's life begins with a fence, a message of no rows under an epoch that is higher than any before
it. Marks, (epoch, sequence), rise along the log; a message whose mark does not is void: an earlier life
that did not know of its end wrote it, or a producer sent it twice. All readers go by this rule, so a
fence shuts out the past without any other agreement.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from streaming.errors import SourceUnavailable, WireError
from streaming.example_wire import ExampleMessage, Mark, decode_examples
from streaming.source import EventSource, Partition, Record
from streaming.statements import item_keys, request_hash

log = logging.getLogger(__name__)

NO_MARK: Mark = (0, -1)
"""Below every mark."""

_MAX_EMPTY_POLLS = 30


@dataclass(slots=True)
class Output:
    """What valid messages state."""

    example_ids: set[int] = field(default_factory=set)
    item_keys: set[int] = field(default_factory=set)
    """Of the items that these are about."""
    newest_ms: int = 0
    """Event time at which the newest statement was decided."""
    mark: Mark = NO_MARK
    """The highest: messages that do not rise above it are void."""


def read_to_fence(source: EventSource, at: Partition, start: int, epoch: int, output: Output) -> int:
    """Add to ``output`` what the log holds from ``start`` to the fence of ``epoch``; the fence's offset.

    The fence must have arrived. Raises SourceUnavailable where it does not come.
    """
    for record, message in messages(source, at, start, source.end_offsets()[at]):
        if message.epoch == epoch:
            return record.offset
        if message.mark <= output.mark:
            continue
        output.mark, batch = message.mark, message.batch
        if len(batch):
            output.example_ids.update(batch.example_id_B.tolist())
            hashes_B = np.array([request_hash(request_id) for request_id in batch.request_id_B], np.uint64)
            output.item_keys.update(item_keys(hashes_B, batch.item_id_B).tolist())
            decided_ms = int((batch.event_time_ms_B + batch.delay_ms_B).max())
            output.newest_ms = max(output.newest_ms, decided_ms)
    raise SourceUnavailable(f"{at}: the fence of epoch {epoch} has not come; try again later")


def messages(
    source: EventSource, at: Partition, start: int, end: int
) -> Iterator[tuple[Record, ExampleMessage]]:
    """Messages of an offset range in their order. Raises SourceUnavailable where they do not come."""
    source.seek({at: start})
    n_empty = 0
    while source.positions()[at] < end:
        records = source.poll(max_records=64, timeout_s=1.0)
        n_empty = 0 if records else n_empty + 1
        if n_empty == _MAX_EMPTY_POLLS:
            raise SourceUnavailable(
                f"{at}: reading stands at {source.positions()[at]}, want {end}; try again later"
            )
        for record in records:
            if record.offset >= end:
                return
            try:
                yield record, decode_examples(record.value)
            except WireError as error:
                # Somebody else's bytes; the trainer passes over them too.
                log.warning("output_skipped", extra={"offset": record.offset, "reason": str(error)})
