"""Consecutive pieces of a batch: what one learning step sees, online and in batch alike."""

from __future__ import annotations

from collections.abc import Iterator

from recsys.features import RaggedKeys


def micro_batches(keys: RaggedKeys, size: int) -> Iterator[tuple[RaggedKeys, slice]]:
    """Consecutive rows in pieces of ``size``, the last one shorter: (their keys, which rows they are).

    A piece never spans two batches, so the steps depend on how the examples were written to the
    log and on nothing else.
    """
    offsets = keys.offsets
    for start in range(0, len(keys), size):
        rows = slice(start, min(start + size, len(keys)))
        piece = RaggedKeys(keys.keys_T[offsets[rows.start] : offsets[rows.stop]], keys.lengths_NF[rows])
        yield piece, rows
