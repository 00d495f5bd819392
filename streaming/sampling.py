"""Which negatives are kept: a draw that is the same in every life of a joiner, from hashes alone.

The rate is written on every row that could have been sampled out, and on positives too, because the
learner corrects its logit by it. After Monolith, sec. 2.2.2 (arXiv:2209.07663); see also Wang, Zhang and
Wang, "Nonuniform Negative Sampling and Log Odds Correction", NeurIPS 2021 (arXiv:2110.13048).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recsys.errors import ConfigError
from recsys.hashing import mix64
from streaming.shown import Shown

_WORDS = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativeSampling:
    """A share of the negatives, drawn once per (request, item) for all of its labels."""

    rate: float | Callable[[Shown, int], float] = 1.0
    """In (0, 1]; or a function of (impression, position) that gives it and depends on nothing else."""
    seed: int = 0
    """64 bits; joiners of one output must agree on it."""

    def __post_init__(self) -> None:
        if not callable(self.rate):
            _check(self.rate)
        if not 0 <= self.seed < _WORDS:
            raise ConfigError(f"seed must be in 0 ... 2**64 - 1, got {self.seed}")

    def rate_of(self, shown: Shown, position: int) -> float:
        """Share of such negatives that is kept. Raises ConfigError where a function gives another."""
        rate = self.rate
        if not callable(rate):
            return rate
        own = rate(shown, position)
        _check(own)
        return own

    def keeps(self, shown: Shown, position: int, rate: float) -> bool:
        """Whether a negative of this item is among the share that is kept."""
        return rate >= 1.0 or mix64(shown.key(position) ^ mix64(self.seed)) < rate * _WORDS


def _check(rate: float) -> None:
    if not 0.0 < rate <= 1.0:
        raise ConfigError(f"sampling rate must be in (0, 1], got {rate}")
