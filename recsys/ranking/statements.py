"""How the rows of a batch came to be stated: which negatives were kept, at once or late, or taken back.

A joiner may state less than what happened, or state it twice. The learner's loss and the metrics both
allow for that, each in its own way; what they need to know is here.

Axes: B examples of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, ShapeError
from recsys.interactions import ExampleBatch

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statements:
    """How each row came to be stated. Immutable: any number of readers."""

    sample_rate_B: Floats
    """Share of such negatives that was kept, in (0, 1]; the same on positives, which are all kept."""
    is_fast_B: Mask
    """Stated as a negative at once, and again as a positive if acted on."""
    weight_B: Floats
    """1; -1 where the row takes back a negative that turned out to be none. Any finite number."""

    def __post_init__(self) -> None:
        shape = self.sample_rate_B.shape
        if len(shape) != 1 or not shape == self.is_fast_B.shape == self.weight_B.shape:
            raise ShapeError(
                f"want one rate, mark and weight per row; got {shape}, {self.is_fast_B.shape} "
                f"and {self.weight_B.shape}"
            )
        rate_B = self.sample_rate_B
        if not ((rate_B > 0.0) & (rate_B <= 1.0)).all():
            raise ConfigError(f"sample rates must be in (0, 1], got {rate_B.min()} to {rate_B.max()}")
        if not np.isfinite(self.weight_B).all():
            raise ConfigError("weights must be finite; look for the joiner that wrote them")

    def __len__(self) -> int:
        return len(self.sample_rate_B)

    def rows(self, which: slice | Mask) -> Statements:
        """Those of some rows."""
        return Statements(
            sample_rate_B=self.sample_rate_B[which],
            is_fast_B=self.is_fast_B[which],
            weight_B=self.weight_B[which],
        )


def statements_of(batch: ExampleBatch, label: int = 0) -> Statements | None:
    """How one label of each row, the first unless said, was stated; None where all of it is plain.

    Plain is rate 1, not fast, weight 1: such rows need no correction. A rate says nothing of a label
    that its row does not state, so only rows that state it are looked at, and the rest read as plain.
    Raises ConfigError for a rate that is not in (0, 1] or a weight that is not finite.
    """
    is_stated_B = ~np.isnan(batch.label_BL[:, label])
    rate_B = np.where(is_stated_B, batch.sample_rate_BL[:, label], np.float32(1.0))
    if (rate_B == 1.0).all() and not batch.is_fast_B.any() and (batch.weight_B == 1.0).all():
        return None
    return Statements(sample_rate_B=rate_B, is_fast_B=batch.is_fast_B, weight_B=batch.weight_B)
