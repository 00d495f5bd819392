"""Recorded logs as streams: every row once, with the keys of a recipe.

Axes: N rows in time order.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from feature_store.datasets.log import InteractionLog
from infra.recipes.recipe import Recipe
from infra.settings import settings_from
from recsys.features import RaggedKeys
from replays.stream import Ids, Stream

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
    rows_N = _first_of_each(log)[:limit]
    parts = []
    for start in range(0, len(rows_N), CHUNK):
        part = rows_N[start : start + CHUNK]
        columns = dataset.columns(
            log.user_id_N[part], log.item_id_N[part], log.domain_index_N[part], log.event_time_ms_N[part]
        )
        parts.append(recipe.schema.encode(columns, len(part)))
    # No feedback, NaN, compares as false.
    label_N = log.value_N[rows_N] >= at_least
    return Stream(
        keys=RaggedKeys.concatenate(parts),
        label_N=label_N.astype(np.float32),
        time_s_N=log.event_time_ms_N[rows_N] // 1000,
        user_N=log.user_id_N[rows_N].astype(np.int64),
        item_N=log.item_id_N[rows_N].astype(np.int64),
    )


def _first_of_each(log: InteractionLog) -> Ids:
    """The first of the rows that say the same, oldest first."""
    said = np.stack(
        [
            log.user_id_N.astype(np.int64),
            log.item_id_N.astype(np.int64),
            log.event_time_ms_N,
            log.domain_index_N,
        ],
        axis=1,
    )
    _, first = np.unique(said, axis=0, return_index=True)
    return np.sort(first)
