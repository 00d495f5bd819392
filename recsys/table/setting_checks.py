"""Ranges of the numbers in a table's rules, checked as the float32 that the arithmetic will see."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys.errors import ConfigError

_LARGEST = float(np.finfo(np.float32).max)


def check_positive(name: str, value: Any) -> None:
    """Raise ConfigError unless ``value`` is a number > 0 and finite in float32."""
    if not (_is_number(value) and value <= _LARGEST and np.float32(value) > 0):
        raise ConfigError(f"{name} must be > 0 and finite in float32, got {value!r}")


def check_not_negative(name: str, value: Any) -> None:
    """Raise ConfigError unless ``value`` is a number >= 0 and finite in float32."""
    if not (_is_number(value) and 0 <= value <= _LARGEST):
        raise ConfigError(f"{name} must be >= 0 and finite in float32, got {value!r}")


def check_fraction(name: str, value: Any) -> None:
    """Raise ConfigError unless ``value`` is a number in [0, 1), in float32 too."""
    if not (_is_number(value) and 0 <= value < 1 and np.float32(value) < 1):
        raise ConfigError(f"{name} must be >= 0 and < 1 in float32, got {value!r}")


def check_positive_fraction(name: str, value: Any) -> None:
    """Raise ConfigError unless ``value`` is a number in (0, 1), in float32 too."""
    if not (_is_number(value) and 0 < value < 1 and 0 < np.float32(value) < 1):
        raise ConfigError(f"{name} must be > 0 and < 1 in float32, got {value!r}")


def check_count(name: str, value: Any, *, least: int) -> None:
    """Raise ConfigError unless ``value`` is an integer >= ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be an integer >= {least}, got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raise ConfigError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
