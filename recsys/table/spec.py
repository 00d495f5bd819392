"""What a table is: its name, its slices of columns, and how their weights start and learn.

A row is the weights of all slices side by side; the optimizer state of all slices lies behind them
in the same order. Two tables can exchange rows exactly when their fingerprints are equal.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from recsys.errors import ConfigError
from recsys.table.initializers import Constant, Initializer, Uniform, Zeros, mix64
from recsys.table.optimizers import SGD, Adagrad, Optimizer, RowWiseAdagrad, state_dim

__all__ = [
    "SGD",
    "Adagrad",
    "Constant",
    "Initializer",
    "Optimizer",
    "RowWiseAdagrad",
    "SliceSpec",
    "TableSpec",
    "Uniform",
    "Zeros",
]

# Names in JSON are part of every snapshot; they do not follow the classes when those are renamed.
_KINDS: dict[str, type[Optimizer | Initializer]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "zeros": Zeros,
    "constant": Constant,
    "uniform": Uniform,
}
_KIND_OF = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceSpec:
    """Columns that start and learn alike."""

    name: str
    """What models ask for; unique in its table."""
    dim: int
    """Columns; >= 1."""
    optimizer: Optimizer
    """How a gradient changes them."""
    initializer: Initializer
    """What they hold in a new row."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a slice needs a name, got an empty one")
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 1:
            raise ConfigError(f"slice {self.name!r}: dim must be an integer >= 1, got {self.dim!r}")
        if not isinstance(self.optimizer, get_args(Optimizer)):
            raise ConfigError(f"slice {self.name!r}: {self.optimizer!r} is not an optimizer")
        if not isinstance(self.initializer, get_args(Initializer)):
            raise ConfigError(f"slice {self.name!r}: {self.initializer!r} is not an initializer")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """One table's layout and rules; equal specs make tables that learn the same bits."""

    name: str
    """Unique in its model; part of the seed of every initial weight."""
    slices: tuple[SliceSpec, ...]
    """At least one, in column order."""
    seed: int = 0
    """Changes all initial weights; 0 to 2**64 - 1."""
    missing: Literal["zeros", "initializer"] = "zeros"
    """What a lookup reads for a key without a row: zeros, or the weights that the row would start at."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        if not self.name:
            raise ConfigError("a table needs a name, got an empty one")
        names = [part.name for part in self.slices]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"table {self.name!r}: want one slice or more with unique names, got {names}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 64:
            raise ConfigError(f"table {self.name!r}: seed must be an integer of 64 bits, got {self.seed!r}")
        if self.missing not in ("zeros", "initializer"):
            raise ConfigError(
                f"table {self.name!r}: missing must be 'zeros' or 'initializer', got {self.missing!r}"
            )

    @property
    def dim(self) -> int:
        """Weights in a row."""
        return sum(part.dim for part in self.slices)

    @property
    def state_dim(self) -> int:
        """Floats of optimizer state in a row."""
        return sum(state_dim(part.optimizer, part.dim) for part in self.slices)

    @property
    def fingerprint(self) -> int:
        """64 bits of a hash of the JSON form; the same on every machine."""
        digest = hashlib.blake2b(self.to_json().encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    def slice(self, name: str) -> slice:
        """Columns of one slice among the weights of a row. Raises ConfigError for an unknown name."""
        begin = 0
        for part in self.slices:
            if part.name == name:
                return slice(begin, begin + part.dim)
            begin += part.dim
        raise ConfigError(
            f"table {self.name!r} has no slice {name!r}; it has {[s.name for s in self.slices]}"
        )

    def slice_seed(self, index: int) -> int:
        """Seed of the initial weights of slice number ``index``."""
        name_hash = hashlib.blake2b(self.name.encode(), digest_size=8).digest()
        return mix64((mix64(self.seed ^ int.from_bytes(name_hash, "little")) + index) & ((1 << 64) - 1))

    def to_json(self) -> str:
        """Canonical JSON: sorted names, no blanks, every real number as a float."""
        slices = [
            {
                "name": part.name,
                "dim": part.dim,
                "optimizer": _rule_to_dict(part.optimizer),
                "initializer": _rule_to_dict(part.initializer),
            }
            for part in self.slices
        ]
        whole = {"name": self.name, "slices": slices, "seed": self.seed, "missing": self.missing}
        return json.dumps(whole, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> TableSpec:
        """The spec that ``to_json`` wrote. Raises ConfigError for anything else, unknown names included."""
        try:
            whole = _exactly(json.loads(text), {"name", "slices", "seed", "missing"})
            slices = [_slice_from_dict(part) for part in whole.pop("slices")]
            return cls(slices=tuple(slices), **whole)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"want the JSON of a table spec, got {text[:200]!r}: {error}") from error


def _rule_to_dict(rule: Optimizer | Initializer) -> dict[str, Any]:
    numbers = {name: float(value) for name, value in asdict(rule).items()}
    return {"kind": _KIND_OF[type(rule)], **numbers}


def _rule_from_dict(given: Any) -> Any:
    kind = _KINDS.get(str(given.get("kind"))) if isinstance(given, dict) else None
    if kind is None:
        raise ConfigError(f"want a rule with a kind among {sorted(_KINDS)}, got {given!r}")
    numbers = _exactly(given, {"kind"} | {field.name for field in fields(kind)})
    del numbers["kind"]
    return kind(**numbers)


def _slice_from_dict(given: Any) -> SliceSpec:
    part = _exactly(given, {"name", "dim", "optimizer", "initializer"})
    optimizer, initializer = _rule_from_dict(part["optimizer"]), _rule_from_dict(part["initializer"])
    return SliceSpec(name=part["name"], dim=part["dim"], optimizer=optimizer, initializer=initializer)


def _exactly(given: Any, names: set[str]) -> dict[str, Any]:
    if not isinstance(given, dict) or set(given) != names:
        got = sorted(given) if isinstance(given, dict) else given
        raise ConfigError(f"want an object with exactly {sorted(names)}, got {got!r}")
    return dict(given)
