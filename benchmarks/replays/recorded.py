"""Recorded logs as streams: every row once, with the keys of a recipe.

Axes: N rows in time order.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from infra.recipes.recipe import Recipe
from infra.settings import settings_from
from recsys.features import RaggedKeys
from replays.stream import Stream

CHUNK = 65_536


def recorded_stream(
    recipe: Recipe, at_least: float, folder: Path | None = None, limit: int | None = None
) -> Stream:
    """The recipe's data from ``folder`` or where the recipe finds it; only the oldest ``limit`` rows.

    The label is whether the feedback's value is ``at_least`` that. Rows that the log holds twice are
    messages sent twice, and are left out as the joiner leaves them out.
    """
    dataset = recipe.load(folder, settings_from(os.environ))
    log = dataset.log
    rows_N = log.distinct_rows()[:limit]
    parts = []
    for start in range(0, len(rows_N), CHUNK):
        part = rows_N[start : start + CHUNK]
        parts.append(recipe.schema.encode(dataset.columns_at(part), len(part)))
    # No feedback, NaN, compares as false.
    label_N = log.value_NK[rows_N, 0] >= at_least
    return Stream(
        keys=RaggedKeys.concatenate(parts),
        label_N=label_N.astype(np.float32),
        time_s_N=log.event_time_ms_N[rows_N] // 1000,
        user_N=log.user_id_N[rows_N].astype(np.int64),
        item_N=log.item_id_N[rows_N].astype(np.int64),
    )
