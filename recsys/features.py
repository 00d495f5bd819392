"""From columns of ids to keys: the one place where training and serving agree on features.

A feature names one column or a cross of several; a schema is an ordered list of features.
Columns are read by name ("user.age", "item.genres", "request.hour"); a column may be multi-valued.

Axes: N items (rows), F features of the schema, T keys in all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, ShapeError
from recsys.keys import MAX_FEATURE, VALUE_BITS, Ids, Keys, pack

Lengths = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Ragged:
    """A multi-valued column: ``lengths_N`` values per row, one after another in ``values_T``."""

    values_T: Ids
    lengths_N: Ids

    def take(self, rows_M: Ids) -> Ragged:
        """The same column at other rows, in the order asked for."""
        ends_N = np.cumsum(self.lengths_N)
        lengths_M = self.lengths_N[rows_M]
        starts_M = ends_N[rows_M] - lengths_M
        within_T = np.arange(lengths_M.sum()) - np.repeat(np.cumsum(lengths_M) - lengths_M, lengths_M)
        return Ragged(self.values_T[np.repeat(starts_M, lengths_M) + within_T], lengths_M)


Column = Ids | Ragged
Columns = Mapping[str, Column]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One sparse feature: a column, or a cross of columns of which at most one is multi-valued."""

    name: str
    number: int
    """Place in the key's high bits, 0 to 4095; no other feature of the schema has it, but for ``rows_of``."""
    columns: tuple[str, ...]
    """What is crossed, by column name."""
    bits: tuple[int, ...]
    """Width of each column's ids; 52 together at the most."""
    rows_of: str | None = None
    """Name of the feature whose rows these ids have too, as a history of items has the item's; the number
    and the widths are then that feature's. None: rows of its own."""

    def __post_init__(self) -> None:
        if not 0 <= self.number <= MAX_FEATURE:
            raise ConfigError(f"feature {self.name!r}: number must be 0 to {MAX_FEATURE}, got {self.number}")
        if not self.columns or len(self.columns) != len(self.bits):
            raise ConfigError(f"feature {self.name!r}: want one width per column, got {self.bits}")
        if min(self.bits) < 1 or sum(self.bits) > VALUE_BITS:
            raise ConfigError(f"feature {self.name!r}: widths must be 1 to {VALUE_BITS} together")


@dataclass(frozen=True, slots=True)
class RaggedKeys:
    """Keys of N rows, row by row and feature by feature: ``lengths_NF[n, f]`` keys each.

    Item-major, so that one row's keys are contiguous bytes and can travel alone.
    """

    keys_T: Keys
    lengths_NF: Lengths

    def __len__(self) -> int:
        return len(self.lengths_NF)

    @property
    def offsets(self) -> Ids:
        """Where each row's keys start, and the end, (N + 1,)."""
        return np.concatenate([[0], np.cumsum(self.lengths_NF.sum(axis=1, dtype=np.int64))])

    def take(self, rows_M: Ids) -> RaggedKeys:
        """The keys of other rows, in the order asked for."""
        per_row_N = self.lengths_NF.sum(axis=1, dtype=np.int64)
        taken = Ragged(self.keys_T.view(np.int64), per_row_N).take(rows_M)
        return RaggedKeys(taken.values_T.view(np.uint64), self.lengths_NF[rows_M])

    def feature_major(self) -> tuple[Keys, NDArray[np.int32]]:
        """(keys, lengths (F * N,)) ordered feature by feature, as a KeyedJaggedTensor wants them."""
        lengths_FN = self.lengths_NF.T.astype(np.int32)
        if (self.lengths_NF == 1).all():
            return self.keys_T.reshape(self.lengths_NF.shape).T.ravel(), lengths_FN.ravel()
        flat_L = self.lengths_NF.ravel().astype(np.int64)
        starts_NF = (np.cumsum(flat_L) - flat_L).reshape(self.lengths_NF.shape)
        source = Ragged(self.keys_T.view(np.int64), flat_L)
        order_L = np.arange(starts_NF.size).reshape(starts_NF.shape).T.ravel()
        return source.take(order_L).values_T.view(np.uint64), lengths_FN.ravel()

    @staticmethod
    def concatenate(parts: list[RaggedKeys]) -> RaggedKeys:
        """The rows of all parts, in order."""
        return RaggedKeys(
            np.concatenate([part.keys_T for part in parts]),
            np.concatenate([part.lengths_NF for part in parts]),
        )


@dataclass(frozen=True)
class FeatureSchema:
    """The ordered features of one model. Immutable, safe to share."""

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        owners = [feature for feature in self.features if feature.rows_of is None]
        for what, values in (("name", list(self.names)), ("number", [owner.number for owner in owners])):
            if len(set(values)) != len(values):
                raise ConfigError(f"two features share a {what}: {sorted(values)}")
        owner_of = {owner.name: owner for owner in owners}
        for feature in self.features:
            if feature.rows_of is not None:
                _check_shares(feature, owner_of)

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in schema order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def fingerprint(self) -> int:
        """64 bits that differ when anything that shapes a key differs.

        That rows are shared shows in the numbers.
        """
        canonical = json.dumps(
            [[f.name, f.number, list(f.columns), list(f.bits)] for f in self.features], sort_keys=True
        )
        return int.from_bytes(hashlib.blake2b(canonical.encode(), digest_size=8).digest(), "little")

    def encode(self, columns: Columns, n_rows: int) -> RaggedKeys:
        """Keys of ``n_rows`` rows. Every column holds one entry (or one list) per row.

        Raises ConfigError when a column is absent, KeyRangeError when an id does not fit.
        """
        parts = [_encode_feature(feature, columns, n_rows) for feature in self.features]
        lengths_NF = np.stack([lengths_N for _, lengths_N in parts], axis=1)
        if (lengths_NF == 1).all():
            keys_NF = np.stack([keys_N for keys_N, _ in parts], axis=1)
            return RaggedKeys(keys_NF.ravel(), lengths_NF.astype(np.uint8))
        feature_major = Ragged(
            np.concatenate([keys_T for keys_T, _ in parts]).view(np.int64), lengths_NF.T.ravel()
        )
        order_L = np.arange(lengths_NF.size).reshape(lengths_NF.shape[::-1]).T.ravel()
        return RaggedKeys(feature_major.take(order_L).values_T.view(np.uint64), lengths_NF.astype(np.uint8))


def _check_shares(feature: Feature, owner_of: Mapping[str, Feature]) -> None:
    """Raise ConfigError unless equal ids of the feature and of the owner of its rows are equal keys."""
    owner = owner_of.get(feature.rows_of or "")
    if owner is None:
        raise ConfigError(
            f"feature {feature.name!r}: rows_of must name a feature with rows of its own, one of "
            f"{sorted(owner_of)}; got {feature.rows_of!r}"
        )
    if (feature.number, feature.bits) != (owner.number, owner.bits):
        raise ConfigError(
            f"feature {feature.name!r}: want number {owner.number} and widths {owner.bits}, those of "
            f"{owner.name!r}, whose rows it uses; got {feature.number} and {feature.bits}"
        )


def _encode_feature(feature: Feature, columns: Columns, n_rows: int) -> tuple[Keys, Ids]:
    """(keys (T,), keys per row (N,)) of one feature."""
    missing = [name for name in feature.columns if name not in columns]
    if missing:
        raise ConfigError(f"feature {feature.name!r} needs column {missing[0]!r}; got {sorted(columns)}")
    crossed = [columns[name] for name in feature.columns]
    ragged = [column for column in crossed if isinstance(column, Ragged)]
    if len(ragged) > 1:
        raise ConfigError(f"feature {feature.name!r} crosses two multi-valued columns; cross one at the most")
    lengths_N = ragged[0].lengths_N if ragged else np.ones(n_rows, dtype=np.int64)
    n_rows_of = [len(c.lengths_N) if isinstance(c, Ragged) else len(c) for c in crossed]
    if n_rows_of != [n_rows] * len(crossed) or lengths_N.max(initial=0) > 255:
        raise ShapeError(f"feature {feature.name!r}: want {n_rows} rows of at most 255 values")
    aligned = [
        column.values_T if isinstance(column, Ragged) else np.repeat(column, lengths_N) if ragged else column
        for column in crossed
    ]
    return pack(feature.number, aligned, feature.bits), lengths_N
