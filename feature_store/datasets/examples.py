"""A log as one batch of learned examples: what a joiner that has waited long enough would say.

Axes: N rows of the log, B examples, L labels, one per kind of feedback.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from feature_store.datasets.log import Dataset, InteractionLog
from feature_store.datasets.requests import mixed
from recsys.errors import ConfigError, ShapeError
from recsys.features import FeatureSchema, RaggedKeys
from recsys.interactions import ExampleBatch, Floats
from recsys.keys import Ids

ROWS_PER_CHUNK = 65_536
EXAMPLE_SALT = 0x5EED_0002


def examples_of(
    dataset: Dataset,
    schema: FeatureSchema,
    *,
    rows: slice | Ids | None = None,
    at_least: Mapping[str, float] | None = None,
) -> ExampleBatch:
    """The log, or those ``rows`` of it, as examples in time order, with a label per kind of feedback.

    A label is 1 where a value of its kind is given, and, for a kind that ``at_least`` names, is no less
    than that; else it is 0. ``rows`` are places in the log, in any order; None is all of them.

    A row that says the same user, item, time and domain as an earlier one of the log is left out,
    whichever rows are asked for: parts of a log share no example, and together hold what the whole does.
    Raises ConfigError when ``at_least`` names a kind that the log does not have, ShapeError when a place
    is not in the log.
    """
    log = dataset.log
    at_least = at_least or {}
    if not set(at_least) <= set(log.feedback_kinds):
        raise ConfigError(f"at_least names {sorted(at_least)}; the log's kinds are {log.feedback_kinds}")
    rows_B = _chosen(log, rows)
    label_BL = _labels(log, rows_B, at_least)
    n = len(rows_B)
    user_B, item_B = log.user_id_N[rows_B], log.item_id_N[rows_B]
    domain_B, time_B = log.domain_index_N[rows_B], log.event_time_ms_N[rows_B]
    return ExampleBatch(
        example_id_B=mixed([user_B, item_B, domain_B, time_B], EXAMPLE_SALT),
        request_id_B=[""] * n,
        user_id_B=user_B,
        item_id_B=item_B,
        event_time_ms_B=time_B,
        domain_B=[log.domains[place] for place in domain_B.tolist()],
        model_version_B=[""] * n,
        label_names=log.feedback_kinds,
        label_BL=label_BL,
        sample_rate_BL=np.ones_like(label_BL),
        weight_B=np.ones(n, np.float32),
        delay_ms_B=log.delay_ms_N[rows_B],
        is_late_B=np.zeros(n, np.bool_),
        is_fast_B=np.zeros(n, np.bool_),
        score_B=np.full(n, np.nan, np.float32),
        keys=RaggedKeys.concatenate(list(_encoded(dataset, schema, rows_B))),
        schema_fingerprint=schema.fingerprint,
    )


def _chosen(log: InteractionLog, rows: slice | Ids | None) -> Ids:
    """The asked for among the log's distinct rows, ascending, (B,)."""
    distinct_M = log.distinct_rows()
    if rows is None:
        return distinct_M
    asked = np.arange(len(log))[rows] if isinstance(rows, slice) else np.asarray(rows)
    if asked.dtype.kind not in "iu" or (len(asked) and not 0 <= asked.min() <= asked.max() < len(log)):
        raise ShapeError(f"rows: want places from 0 to {len(log) - 1}, got {asked}")
    return np.intersect1d(distinct_M, asked)


def _labels(log: InteractionLog, rows_B: Ids, at_least: Mapping[str, float]) -> Floats:
    """1 or 0 for each row and kind, (B, L)."""
    # Anything given is more than minus infinity; nothing given, NaN, compares as false.
    least_L = np.array([at_least.get(kind, -np.inf) for kind in log.feedback_kinds])
    return (log.value_NK[rows_B] >= least_L).astype(np.float32)


def _encoded(dataset: Dataset, schema: FeatureSchema, rows_B: Ids) -> Iterator[RaggedKeys]:
    """The keys of these rows, some at a time; at least one part, also of no rows."""
    for start in range(0, max(len(rows_B), 1), ROWS_PER_CHUNK):
        part = rows_B[start : start + ROWS_PER_CHUNK]
        yield schema.encode(dataset.columns_at(part), len(part))
