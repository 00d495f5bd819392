"""How a learning rate changes as a table learns; a constant one is just a float.

``step`` is the number of learn calls that the table has had before, so the first is step 0.
References: Loshchilov & Hutter, ICLR 2017 (cosine); Vaswani et al., NeurIPS 2017 (inverse square root).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recsys.errors import ConfigError
from recsys.table.setting_checks import (
    check_count,
    check_not_negative,
    check_positive,
    check_positive_fraction,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Rises in a line to ``peak``, then stays."""

    peak: float
    """Rate from step ``steps - 1`` on; > 0."""
    steps: int
    """Steps of the rise; the first one takes peak / steps; >= 1."""

    def __post_init__(self) -> None:
        check_positive("peak", self.peak)
        check_count("steps", self.steps, least=1)

    def at(self, step: int) -> float:
        """Rate of this step."""
        return self.peak * min(1.0, (step + 1) / self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialDecay:
    """start * rate ** (step / steps), never below ``floor``."""

    start: float
    """Rate of step 0; > 0."""
    rate: float
    """What every ``steps`` steps multiply by; > 0 and < 1."""
    steps: int
    """Steps that one factor of ``rate`` is spread over; >= 1."""
    floor: float = 0.0
    """Least rate; >= 0 and < start."""

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_positive_fraction("rate", self.rate)
        check_count("steps", self.steps, least=1)
        _check_end("floor", self.floor, self.start)

    def at(self, step: int) -> float:
        """Rate of this step."""
        return max(self.floor, self.start * math.pow(self.rate, step / self.steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class CosineDecay:
    """Rises in a line to ``start``, falls along half a cosine to ``end``, then stays."""

    start: float
    """Rate at the end of the warm-up; > 0."""
    steps: int
    """Steps of the fall, counted from the end of the warm-up; >= 1."""
    end: float = 0.0
    """Rate after the fall; >= 0 and < start."""
    warm_up_steps: int = 0
    """Steps of the rise; >= 0."""

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_count("steps", self.steps, least=1)
        _check_end("end", self.end, self.start)
        check_count("warm_up_steps", self.warm_up_steps, least=0)

    def at(self, step: int) -> float:
        """Rate of this step."""
        if step < self.warm_up_steps:
            return self.start * (step + 1) / self.warm_up_steps
        fallen = min(1.0, (step - self.warm_up_steps) / self.steps)
        return self.end + (self.start - self.end) * (1.0 + math.cos(math.pi * fallen)) / 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseSqrt:
    """Rises in a line to ``peak``, then falls as 1 / sqrt(step)."""

    peak: float
    """Highest rate, at step ``warm_up_steps - 1``; > 0."""
    warm_up_steps: int
    """Steps of the rise; >= 1."""

    def __post_init__(self) -> None:
        check_positive("peak", self.peak)
        check_count("warm_up_steps", self.warm_up_steps, least=1)

    def at(self, step: int) -> float:
        """Rate of this step."""
        progress = (step + 1) / self.warm_up_steps
        return self.peak * min(progress, 1.0 / math.sqrt(progress))


Schedule = WarmUp | ExponentialDecay | CosineDecay | InverseSqrt

SCHEDULES: dict[str, type[Schedule]] = {
    "warm_up": WarmUp,
    "exponential_decay": ExponentialDecay,
    "cosine_decay": CosineDecay,
    "inverse_sqrt": InverseSqrt,
}
"""Names in JSON."""


def rate_at(learning_rate: float | Schedule, step: int) -> np.float32:
    """The rate of one step, as the tables use it."""
    return np.float32(learning_rate.at(step) if isinstance(learning_rate, Schedule) else learning_rate)


def check_learning_rate(learning_rate: float | Schedule) -> None:
    """Raise ConfigError unless it is a schedule, or a number > 0 and finite in float32."""
    if not isinstance(learning_rate, Schedule):
        check_positive("learning_rate", learning_rate)


def _check_end(name: str, end: float, start: float) -> None:
    check_not_negative(name, end)
    if end >= start:
        raise ConfigError(f"{name} must be < start, got {end} for a start of {start}")
