"""What every table refuses, in the same words."""

from __future__ import annotations

from recsys.errors import ConfigError
from recsys.table.spec import TableSpec


def check_learnable(spec: TableSpec) -> None:
    """Raise ConfigError where a slice's codec cannot take small steps."""
    if not spec.is_learnable:
        stored = {part.name: type(part.codec).__name__ for part in spec.slices}
        raise ConfigError(
            f"table {spec.name!r} is stored as {stored}: only fp32, fp16 and bf16 can be learned in; "
            "learn in a table of those and assign to this one"
        )


def gradient_refusal(spec: TableSpec, key: int) -> str:
    """Message of the GradientError that both tables raise."""
    return (
        f"table {spec.name!r}: the summed gradient of key {key:#018x} is not finite; "
        "nothing was learned from this batch: drop it or clip the gradients"
    )


def missing_row(spec: TableSpec, key: int) -> str:
    """Message of the KeyError that both tables raise."""
    return f"table {spec.name!r} has no row for key {key:#018x}; ask contains() first"


def no_follower(spec: TableSpec, follower: int) -> str:
    """Message of the ConfigError that both tables raise."""
    return f"table {spec.name!r} has no follower {follower}; ask follow() for one"


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise ConfigError unless ``value`` is a whole number that is not below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be an integer >= {least}, got {value!r}")
