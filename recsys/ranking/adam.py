"""Settings of Adam, the optimiser of the dense weights. Kingma & Ba, ICLR 2015, arXiv:1412.6980."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamConfig:
    """How the dense weights learn."""

    learning_rate: float = 1e-3
    """Largest step of a weight, about; > 0."""
    first_decay: float = 0.9
    """β₁, memory of the gradient; in [0, 1)."""
    second_decay: float = 0.999
    """β₂, memory of its square; in [0, 1)."""
    epsilon: float = 1e-8
    """Added to the root of the second moment; > 0."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("first_decay", "second_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ConfigError(f"{name} must be in [0, 1), got {getattr(self, name)}")
