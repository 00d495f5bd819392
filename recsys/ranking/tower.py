"""What every ranker's dense part has in common: how it is described, and how its weights travel.

A tower is an nn.Module from pooled rows (B, W) to log-odds (B,), where W = F * (1 + K): for each
feature one wide column, then K vector columns. It holds no embedding rows and no random state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsys.errors import ConfigError, ShapeError, SnapshotError
from recsys.table.spec import TableSpec

Floats = NDArray[np.float32]

WEIGHT = "weight."
"""Begins the name of each weight in a learner's dense state; part of every snapshot."""


class TowerConfig(Protocol):
    """Settings from which the same tower can be built anywhere: by a learner and by every scorer."""

    @property
    def n_features(self) -> int:
        """F, as many as the feature schema has."""

    @property
    def vector_dim(self) -> int:
        """K, the width of the table's vector slice."""

    def build(self) -> nn.Module:
        """A tower at its initial weights: the same bits each time."""


def check_sizes(n_features: int, vector_dim: int) -> None:
    """Raise ConfigError unless both sizes are >= 1."""
    if n_features < 1 or vector_dim < 1:
        raise ConfigError(
            f"n_features and vector_dim must be >= 1, got n_features={n_features}, vector_dim={vector_dim}"
        )


def check_hidden(hidden: tuple[int, ...]) -> None:
    """Raise ConfigError unless there is at least one width and all are >= 1."""
    if not hidden or min(hidden) < 1:
        raise ConfigError(f"hidden must hold at least one width, each >= 1; got {hidden}")


def check_table(config: TowerConfig, spec: TableSpec, n_pooled: int) -> None:
    """Raise ConfigError unless the table's rows are one wide column and then K vector columns."""
    dims = [part.dim for part in spec.slices]
    if dims != [1, config.vector_dim]:
        raise ConfigError(
            f"table {spec.name!r}: want slices of dims [1, {config.vector_dim}] (wide, vector), got {dims}"
        )
    if n_pooled != config.n_features:
        raise ConfigError(f"the tower takes {config.n_features} features, but {n_pooled} have a pooling")


def weights_in(state: Mapping[str, Floats]) -> dict[str, Floats]:
    """The tower's weights out of a learner's dense state: all that serving needs of it."""
    return {name.removeprefix(WEIGHT): array for name, array in state.items() if name.startswith(WEIGHT)}


def export_weights(tower: nn.Module) -> dict[str, Floats]:
    """A copy of each weight by its name in the tower."""
    return {name: value.detach().numpy().copy() for name, value in tower.named_parameters()}


def import_weights(tower: nn.Module, weights: Mapping[str, Floats]) -> None:
    """Set all weights by name.

    Raises SnapshotError for a missing or unknown name and ShapeError for another shape or dtype; the
    tower is then as it was.
    """
    parameters = dict(tower.named_parameters())
    if parameters.keys() != weights.keys():
        raise SnapshotError(
            f"dense weights: got {sorted(weights)}, wanted {sorted(parameters)}; "
            "load them into a tower of the same configuration"
        )
    for name, parameter in parameters.items():
        check_like(name, weights[name], parameter.shape)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.tensor(weights[name]))


def check_like(name: str, array: Floats, shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless ``array`` is float32 of this shape."""
    if array.dtype != np.float32 or array.shape != tuple(shape):
        raise ShapeError(f"{name!r}: want float32 {tuple(shape)}, got {array.dtype} {array.shape}")
