"""What was shown, what people did, and what is learned from it: records that every package shares.

Axes: K items of one impression, B examples of a batch, F features.
Times are event times in Unix milliseconds: when it happened, on the product's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ShapeError
from recsys.features import RaggedKeys

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
ItemIds = NDArray[np.uint64]


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
    """Joined examples in the order in which they are to be learned."""

    example_id_B: NDArray[np.uint64]
    """hash(request, item): the same example joined twice has the same id."""
    user_id_B: NDArray[np.uint64]
    item_id_B: ItemIds
    event_time_ms_B: Ids
    """When the item was shown."""
    domain_B: list[str]
    label_B: Floats
    score_B: Floats
    """What serving predicted; NaN where it was not logged."""
    keys: RaggedKeys
    schema_fingerprint: int

    def __len__(self) -> int:
        return len(self.label_B)
