"""What every ranker's dense part has in common: how it is described, and how its weights travel.

A tower goes from pooled rows (B, W) to log-odds (B, L) of L tasks, where W = F * (L + K): for each
feature L wide columns, one a task, then K vector columns. It holds no embedding rows and no random
state. What it holds besides parameters, such as running statistics, is in float32 buffers, and travels
with them as one version. A buffer whose own name begins with ``learning_`` is of no use to serving and
travels in snapshots alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.errors import ConfigError, ShapeError, SnapshotError
from recsys.features import RaggedKeys
from recsys.keys import Ids
from recsys.table.spec import TableSpec

Floats = NDArray[np.float32]

WEIGHT = "weight."
"""Begins the name of each weight in a learner's dense state; part of every snapshot."""
LEARNING = "learning_"
"""Begins the own name of a buffer that only learning needs."""


class Tower(nn.Module):
    """Log-odds of pooled rows. Any number of callers of forward while nobody changes the weights.

    A forward pass changes nothing, in training neither: what moves with the data is noted there, where
    gradients are on, and folded in by ``adapt`` once the step that the pass was for has been taken.
    """

    @property
    def trains_as_it_serves(self) -> bool:
        """Whether a forward pass in training gives what evaluation gives."""
        return True

    @property
    def reads_domain(self) -> bool:
        """Whether outputs depend on the domains that are given; else they need not be looked up."""
        return True

    def adapt(self) -> None:
        """Fold in what the last forward pass in training noted, if it has not been yet."""

    def fold(self) -> None:
        """Work out ahead what serving needs of weights that will change no more."""


class DomainIndex(Protocol):
    """Tells the domain of each row from its keys."""

    @property
    def n_domains(self) -> int:
        """N, the last of which stands for any domain that is not known."""

    def of(self, batch: RaggedKeys) -> Ids:
        """Domain of each row, (B,), 0 to N - 1."""


class TowerConfig(Protocol):
    """Settings from which the same tower can be built anywhere: by a learner and by every scorer."""

    @property
    def n_features(self) -> int:
        """F, as many as the feature schema has."""

    @property
    def vector_dim(self) -> int:
        """K, the width of the table's vector slice."""

    @property
    def n_tasks(self) -> int:
        """L, the labels that are learned."""

    @property
    def domains(self) -> DomainIndex | None:
        """How rows are told apart by domain; None for a tower that takes pooled rows alone."""

    def build(self) -> Tower:
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
    """Raise ConfigError unless the table's rows are L wide columns and then K vector columns."""
    dims, wanted = [part.dim for part in spec.slices], [config.n_tasks, config.vector_dim]
    if dims != wanted:
        raise ConfigError(f"table {spec.name!r}: want slices of dims {wanted} (wide, vector), got {dims}")
    if n_pooled != config.n_features:
        raise ConfigError(f"the tower takes {config.n_features} features, but {n_pooled} have a pooling")


def log_odds(tower: Tower, config: TowerConfig, pooled_BW: Tensor, batch: RaggedKeys) -> Tensor:
    """Log-odds of each task, (B, L), from a batch's keys and their pooled rows."""
    domains = config.domains
    if domains is None:
        given: tuple[Tensor, ...] = (pooled_BW,)
    else:
        domain_B = domains.of(batch) if tower.reads_domain else np.zeros(len(batch), np.int64)
        given = (pooled_BW, torch.from_numpy(domain_B))
    logit: Tensor = tower(*given)
    return logit.view(len(batch), config.n_tasks)


def weights_in(state: Mapping[str, Floats]) -> dict[str, Floats]:
    """The tower's weights out of a learner's dense state: all that serving needs of it."""
    return {
        name.removeprefix(WEIGHT): array
        for name, array in state.items()
        if name.startswith(WEIGHT) and not is_for_learning(name)
    }


def is_for_learning(name: str) -> bool:
    """Whether a weight of this name is a buffer that only learning needs."""
    return name.rpartition(".")[2].startswith(LEARNING)


def export_weights(tower: nn.Module, *, for_learning: bool = False) -> dict[str, Floats]:
    """A copy of each parameter and buffer by its name in the tower.

    Those that only learning needs are left out, unless they are asked for.
    """
    state = tower.state_dict()
    return {
        name: value.numpy().copy()
        for name, value in state.items()
        if for_learning or not is_for_learning(name)
    }


def import_weights(tower: nn.Module, weights: Mapping[str, Floats], *, for_learning: bool = False) -> None:
    """Set all parameters and buffers by name, as ``export_weights`` gave them.

    Raises SnapshotError for a missing or unknown name and ShapeError for another shape or dtype; the
    tower is then as it was.
    """
    state = {
        name: value for name, value in tower.state_dict().items() if for_learning or not is_for_learning(name)
    }
    if state.keys() != weights.keys():
        raise SnapshotError(
            f"dense weights: got {sorted(weights)}, wanted {sorted(state)}; "
            "load them into a tower of the same configuration"
        )
    for name, value in state.items():
        check_like(name, weights[name], value.shape)
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(torch.tensor(weights[name]))


def check_like(name: str, array: Floats, shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless ``array`` is float32 of this shape."""
    if array.dtype != np.float32 or array.shape != tuple(shape):
        raise ShapeError(f"{name!r}: want float32 {tuple(shape)}, got {array.dtype} {array.shape}")
