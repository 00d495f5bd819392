"""Statements about one showing of an item put together: it is learned once, however many labels it has.

A joiner states a positive label in a row of its own and the negative ones beside it. Rows of one showing
that lie side by side and state different labels are one example; learned one by one they would be looked
up, routed and counted several times, and those who act would weigh more than those who do not. A showing
that is cut by the end of a message stays in two parts.

Axes: B rows of a batch, M examples, L labels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from recsys.interactions import ExampleBatch
from recsys.keys import Ids


def one_row_per_showing(batch: ExampleBatch) -> tuple[ExampleBatch, Ids]:
    """(the batch with such rows put together, (M,); the place in it of each row that went in, (B,)).

    Late rows, those stated at once, and those that take something back stay as they are.
    """
    n = len(batch)
    if n < 2 or len(batch.label_names) == 1:
        return batch, np.arange(n)
    begins_B = ~_continues(batch)
    starts_M = np.flatnonzero(begins_B)
    place_B: Ids = np.cumsum(begins_B) - 1
    is_stated_BL = ~np.isnan(batch.label_BL)
    rate_BL = np.where(is_stated_BL, batch.sample_rate_BL, np.float32(np.nan))
    rate_ML = np.fmin.reduceat(rate_BL, starts_M, axis=0)
    merged = dataclasses.replace(
        batch.take(starts_M),
        label_BL=np.fmax.reduceat(batch.label_BL, starts_M, axis=0),
        sample_rate_BL=np.where(np.isnan(rate_ML), np.float32(1.0), rate_ML),
        delay_ms_B=np.maximum.reduceat(batch.delay_ms_B, starts_M),
    )
    return merged, place_B


def _continues(batch: ExampleBatch) -> NDArray[np.bool_]:
    """Whether a row says more of the showing that the rows just before it are about, (B,)."""
    is_plain_B = (batch.weight_B == 1.0) & ~batch.is_late_B & ~batch.is_fast_B
    request_B = np.array(batch.request_id_B, dtype=object)
    continues_B = np.zeros(len(batch), np.bool_)
    continues_B[1:] = (
        is_plain_B[1:]
        & is_plain_B[:-1]
        & (batch.item_id_B[1:] == batch.item_id_B[:-1])
        & (batch.user_id_B[1:] == batch.user_id_B[:-1])
        & (request_B[1:] == request_B[:-1])
        & (batch.event_time_ms_B[1:] == batch.event_time_ms_B[:-1])
    )
    # A showing of which some label is stated twice stays as it is.
    place_B = np.cumsum(~continues_B) - 1
    is_stated_BL = ~np.isnan(batch.label_BL)
    said_ML = np.add.reduceat(is_stated_BL.astype(np.int64), np.flatnonzero(~continues_B), axis=0)
    result: NDArray[np.bool_] = continues_B & (said_ML.max(axis=1) <= 1)[place_B]
    return result
