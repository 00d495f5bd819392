"""What was shown, what people did, and what is learned from it: records that every package shares.

Axes: K items of one impression, B examples of a batch, F features.
Times are event times in Unix milliseconds: when it happened, on the product's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.features import RaggedKeys

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
ItemIds = NDArray[np.uint64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """Items shown for one request, with features as served.

    An impression of no items is a heartbeat: it only moves event time on.
    """

    request_id: str
    user_id: int
    event_time_ms: int
    domain: str = ""
    policy: str = ""
    model_version: str = ""
    schema_fingerprint: int = 0
    item_ids_K: ItemIds
    scores_K: Floats
    propensities_K: Floats
    keys: RaggedKeys
    """One row per item, in the order of ``item_ids_K``; positions are that order."""

    def __post_init__(self) -> None:
        if not len(self.item_ids_K) == len(self.scores_K) == len(self.propensities_K) == len(self.keys):
            raise ShapeError(
                f"impression {self.request_id!r}: want one score, propensity and key row per item"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One thing a person did with one shown item. An empty ``kind`` is a heartbeat."""

    event_id: int
    """64 bits; the same action sent twice carries the same id."""
    request_id: str
    user_id: int
    item_id: int
    kind: str
    """click, watch_ms, like, follow, comment, share, hate, rating …"""
    value: float
    event_time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleBatch:
    """Joined examples in the order in which they are to be learned.

    A row states what became of one shown item under some of L labels; another row may state the
    others later, when they are known.
    """

    example_id_B: NDArray[np.uint64]
    """hash(request, item, what is stated): the same statement made twice has the same id."""
    request_id_B: list[str]
    user_id_B: NDArray[np.uint64]
    item_id_B: ItemIds
    event_time_ms_B: Ids
    """When the item was shown."""
    domain_B: list[str]
    model_version_B: list[str]
    """What served it."""
    label_names: tuple[str, ...]
    """L of them; the first is the one that a single-task ranker learns."""
    label_BL: Floats
    """NaN where the row says nothing of that label."""
    sample_rate_BL: Floats
    """Share of such negatives that was kept, in (0, 1]; the same on positives, which are all kept."""
    weight_B: Floats
    """1; or -1 where the row takes back a negative that turned out to be none."""
    delay_ms_B: Ids
    """Event time from the showing to what decided: a feedback, or the end of its window."""
    is_late_B: Mask
    """A feedback came after the negative had been stated."""
    is_fast_B: Mask
    """Stated as a negative at once and again as a positive if acted on; the loss must allow for it."""
    score_B: Floats
    """What serving predicted; NaN where it was not logged."""
    keys: RaggedKeys
    schema_fingerprint: int

    def __post_init__(self) -> None:
        shape = (len(self.example_id_B), len(self.label_names))
        if not shape[1] or self.label_BL.shape != shape or self.sample_rate_BL.shape != shape:
            raise ShapeError(
                f"want labels and sample rates of shape {shape} with at least one label; "
                f"got {self.label_BL.shape} and {self.sample_rate_BL.shape}"
            )

    def __len__(self) -> int:
        return len(self.example_id_B)

    def take(self, rows_M: Ids) -> ExampleBatch:
        """The batch at other rows, in the order asked for."""
        columns: dict[str, Any] = {"keys": self.keys.take(rows_M)}
        for name in (one.name for one in fields(self)):
            column = getattr(self, name)
            if isinstance(column, np.ndarray):
                columns[name] = column[rows_M]
            elif isinstance(column, list):
                columns[name] = [column[row] for row in rows_M.tolist()]
        return replace(self, **columns)

    @property
    def label_B(self) -> Floats:
        """The first label, (B,); NaN where a row says nothing of it."""
        return self.label_BL[:, 0]


UNNAMED_LABEL = ("label",)
"""Of examples whose one label nobody has named: those of wire 1, and of tests."""


def begins_with_labels(label_names: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether examples state the labels that a model learns, first and in its order.

    A single label that nobody has named is taken for the one that is wanted.
    """
    return label_names[: len(wanted)] == wanted or (label_names == UNNAMED_LABEL and len(wanted) == 1)


def plain_examples(
    *,
    example_id_B: NDArray[np.uint64],
    event_time_ms_B: Ids,
    label_B: Floats,
    keys: RaggedKeys,
    schema_fingerprint: int,
    user_id_B: NDArray[np.uint64] | None = None,
    item_id_B: ItemIds | None = None,
) -> ExampleBatch:
    """Examples of one label of which every one was kept and none came late."""
    n = len(label_B)
    return ExampleBatch(
        example_id_B=example_id_B,
        request_id_B=[""] * n,
        user_id_B=np.zeros(n, np.uint64) if user_id_B is None else user_id_B,
        item_id_B=np.zeros(n, np.uint64) if item_id_B is None else item_id_B,
        event_time_ms_B=event_time_ms_B,
        domain_B=[""] * n,
        model_version_B=[""] * n,
        label_names=UNNAMED_LABEL,
        label_BL=label_B.reshape(-1, 1),
        sample_rate_BL=np.ones((n, 1), np.float32),
        weight_B=np.ones(n, np.float32),
        delay_ms_B=np.zeros(n, np.int64),
        is_late_B=np.zeros(n, np.bool_),
        is_fast_B=np.zeros(n, np.bool_),
        score_B=np.full(n, np.nan, np.float32),
        keys=keys,
        schema_fingerprint=schema_fingerprint,
    )
