"""What a table is: its name, its slices of columns, and who may have a row in it for how long.

A row is the weights of all slices side by side; the optimizer state of all slices lies behind them
in the same order. Two tables can exchange rows exactly when their fingerprints are equal.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args

import numpy as np

from recsys.errors import ConfigError
from recsys.hashing import mix64
from recsys.table import codecs, optimizers, schedules
from recsys.table.admission import Admission, AdmitAll, Occurrence, Probabilistic
from recsys.table.clipping import CLIPS, Clip
from recsys.table.codecs import FP32, Codec
from recsys.table.initializers import Constant, Initializer, Uniform, Zeros
from recsys.table.optimizers import Optimizer
from recsys.table.retention import LFU, LRU, Capacity, DistanceLFU, Expiry

# Names in JSON are part of every snapshot; they do not follow the classes when those are renamed.
_KINDS: dict[str, type[Any]] = {
    **optimizers.KINDS,
    **schedules.SCHEDULES,
    **codecs.KINDS,
    **CLIPS,
    "zeros": Zeros,
    "constant": Constant,
    "uniform": Uniform,
    "admit_all": AdmitAll,
    "occurrence": Occurrence,
    "probabilistic": Probabilistic,
    "expiry": Expiry,
    "capacity": Capacity,
    "lfu": LFU,
    "lru": LRU,
    "distance_lfu": DistanceLFU,
}
_KIND_OF = {kind: name for name, kind in _KINDS.items()}

# The others cannot hold a small step.
LEARNABLE_CODECS = (codecs.FP32, codecs.FP16, codecs.BF16)

_FP32, _ADMIT_ALL, _NEVER = FP32(), AdmitAll(), Expiry()


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
    codec: Codec = _FP32
    """How the table stores them: fp32, fp16 or bf16 where they are learned, any where they are served."""
    clip: Clip | None = None
    """Bound on the summed gradient of a row."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a slice needs a name, got an empty one")
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 1:
            raise ConfigError(f"slice {self.name!r}: dim must be an integer >= 1, got {self.dim!r}")
        if not isinstance(self.optimizer, get_args(Optimizer)):
            raise ConfigError(f"slice {self.name!r}: {self.optimizer!r} is not an optimizer")
        if not isinstance(self.initializer, get_args(Initializer)):
            raise ConfigError(f"slice {self.name!r}: {self.initializer!r} is not an initializer")
        if not isinstance(self.codec, get_args(Codec)):
            raise ConfigError(f"slice {self.name!r}: {self.codec!r} is not a codec")
        if self.clip is not None and not isinstance(self.clip, get_args(Clip)):
            raise ConfigError(f"slice {self.name!r}: {self.clip!r} is not a clipping rule")

    def rate_at(self, step: int) -> np.float32:
        """Learning rate of a step; 0 for an optimizer that has none."""
        return optimizers.learning_rate_at(self.optimizer, step)


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
    admission: Admission = _ADMIT_ALL
    """Which new keys get a row."""
    expiry: Expiry = _NEVER
    """After how long without a gradient a row may be swept away."""
    capacity: Capacity | None = None
    """How much the table may hold; None is as much as fits into memory."""
    nonfinite: Literal["refuse", "drop", "clip"] = "refuse"
    """A summed gradient with a NaN or an infinity: refuse the whole batch; drop that key's gradient; or take
    NaN as 0 and an infinity as the largest float, and let the slices' clip bound it, which must be set."""

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
        self._check_rules()

    def _check_rules(self) -> None:
        rules: list[tuple[str, Any, Any]] = [
            ("admission", self.admission, get_args(Admission)),
            ("expiry", self.expiry, Expiry),
            ("capacity", self.capacity, (Capacity, type(None))),
        ]
        for name, value, kinds in rules:
            if not isinstance(value, kinds):
                raise ConfigError(f"table {self.name!r}: {name} cannot be {value!r}")
        if self.nonfinite not in ("refuse", "drop", "clip"):
            raise ConfigError(
                f"table {self.name!r}: nonfinite must be 'refuse', 'drop' or 'clip', got {self.nonfinite!r}"
            )
        unclipped = [part.name for part in self.slices if part.clip is None]
        if self.nonfinite == "clip" and unclipped:
            raise ConfigError(f"table {self.name!r}: nonfinite='clip' needs a clip on {unclipped}")

    @property
    def is_learnable(self) -> bool:
        """Whether every slice is stored in a codec that can take small steps."""
        return all(isinstance(part.codec, LEARNABLE_CODECS) for part in self.slices)

    @property
    def zeroes_rows(self) -> bool:
        """Whether an optimizer sets whole rows to zero, and such a row reads as a missing one does."""
        groups = (optimizers.FTRL, optimizers.GroupFTRL, optimizers.GroupAdagrad)
        return self.missing == "zeros" and all(isinstance(part.optimizer, groups) for part in self.slices)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's weights, as stored, and of its optimizer state; keys and metadata not counted."""
        return self.weight_bytes + 4 * self.state_dim

    @property
    def weight_bytes(self) -> int:
        """Bytes of a row's weights, as stored."""
        return sum(codecs.codec_bytes(part.codec, part.dim) for part in self.slices)

    @property
    def dim(self) -> int:
        """Weights in a row."""
        return sum(part.dim for part in self.slices)

    @property
    def state_dim(self) -> int:
        """Floats of optimizer state in a row."""
        return sum(optimizers.state_dim(part.optimizer, part.dim) for part in self.slices)

    @property
    def fingerprint(self) -> int:
        """64 bits of a hash of what rows mean: name, seed, slices, optimizers, initializers, missing.

        How they are stored, and which keys may have one for how long, can change from run to run.
        The same on every machine.
        """
        slices = [
            {
                "name": part.name,
                "dim": part.dim,
                "optimizer": _to_plain(part.optimizer),
                "initializer": _to_plain(part.initializer),
            }
            for part in self.slices
        ]
        whole = {"name": self.name, "slices": slices, "seed": self.seed, "missing": self.missing}
        digest = hashlib.blake2b(_canonical(whole).encode(), digest_size=8).digest()
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

    @property
    def filter_seed(self) -> int:
        """Seed of the admission filter's hashes and draws, apart from every slice's."""
        return self.slice_seed(-1)

    def to_json(self) -> str:
        """Canonical JSON: sorted names, no blanks, every real number as a float."""
        return _canonical(_to_plain(self))

    @classmethod
    def from_json(cls, text: str) -> TableSpec:
        """The spec that ``to_json`` wrote. Raises ConfigError for anything else, unknown names included."""
        try:
            whole = json.loads(text)
            slices = tuple(_rebuild(SliceSpec, part) for part in whole.pop("slices"))
            spec: TableSpec = _rebuild(cls, {**whole, "slices": slices})
            return spec
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"want the JSON of a table spec, got {text[:200]!r}: {error!r}") from error


def _canonical(plain: Any) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def _to_plain(value: Any) -> Any:
    """What JSON can hold; a rule becomes an object that names its kind."""
    if is_dataclass(value):
        plain = {
            field.name: _number(field.type, _to_plain(getattr(value, field.name))) for field in fields(value)
        }
        return {"kind": _KIND_OF[type(value)], **plain} if type(value) in _KIND_OF else plain
    return [_to_plain(part) for part in value] if isinstance(value, tuple) else value


def _number(annotation: Any, value: Any) -> Any:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_whole and "float" in str(annotation) else value


def _from_plain(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_from_plain(part) for part in plain)
    if not isinstance(plain, dict):
        return plain
    kind = _KINDS.get(str(plain.get("kind")))
    if kind is None:
        raise ConfigError(f"want a rule with a kind among {sorted(_KINDS)}, got {plain!r}")
    return _rebuild(kind, {name: value for name, value in plain.items() if name != "kind"})


def _rebuild(kind: Any, plain: Any) -> Any:
    names = {field.name for field in fields(kind)}
    if not isinstance(plain, dict) or set(plain) != names:
        got = sorted(plain) if isinstance(plain, dict) else plain
        raise ConfigError(f"want an object with exactly {sorted(names)}, got {got!r}")
    return kind(**{name: _from_plain(value) for name, value in plain.items()})
