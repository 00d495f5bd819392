"""Whether a candidate may take the champion's place: a pure decision over their metrics.

Metrics are those of ``recsys.evaluation.progressive``: examples, log_loss, calibration (mean
prediction over mean label). NaN and a missing figure never pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from recsys.errors import ConfigError

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What a candidate must show."""

    min_examples: int = 10_000
    """Fewer examples than this prove nothing; >= 0."""
    max_log_loss_ratio: float = 1.0
    """Candidate's log loss over the champion's may be at most this; > 0."""
    calibration_low: float = 0.9
    """Smallest calibration that passes; >= 0."""
    calibration_high: float = 1.1
    """Largest calibration that passes; at least ``calibration_low``."""

    def __post_init__(self) -> None:
        if self.min_examples < 0:
            raise ConfigError(f"min_examples must be >= 0, got {self.min_examples}")
        if not self.max_log_loss_ratio > 0:
            raise ConfigError(f"max_log_loss_ratio must be > 0, got {self.max_log_loss_ratio}")
        if not 0 <= self.calibration_low <= self.calibration_high:
            raise ConfigError(
                "want 0 <= calibration_low <= calibration_high, "
                f"got {self.calibration_low} and {self.calibration_high}"
            )


@dataclass(frozen=True, slots=True)
class Decision:
    """The gate's answer."""

    passed: bool
    reasons: tuple[str, ...]
    """What stands in the way, one sentence each; empty when passed."""


def decide(candidate: Metrics, champion: Metrics | None, config: GateConfig) -> Decision:
    """Judge a candidate; without a champion only its own figures count."""
    examples, log_loss, calibration = (
        candidate.get(name, math.nan) for name in ("examples", "log_loss", "calibration")
    )
    reasons = []
    # Each test is written so that NaN fails it.
    if not examples >= config.min_examples:
        reasons.append(f"it learned from {examples:.0f} examples, wanted {config.min_examples}")
    if not config.calibration_low <= calibration <= config.calibration_high:
        reasons.append(
            f"its calibration is {calibration:.4f}, wanted {config.calibration_low} to "
            f"{config.calibration_high}"
        )
    if not math.isfinite(log_loss):
        reasons.append(f"its log loss is {log_loss}, wanted a finite number")
    elif champion is not None:
        bound = champion.get("log_loss", math.nan) * config.max_log_loss_ratio
        if not log_loss <= bound:
            reasons.append(f"its log loss is {log_loss:.6f}, wanted at most {bound:.6f}")
    return Decision(not reasons, tuple(reasons))
