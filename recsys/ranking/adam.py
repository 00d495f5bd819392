"""Adam for a tower's dense weights, over one flat buffer.

A tower has a few thousand weights in half a dozen tensors and takes hundreds of steps a second, so
what a step costs is calls, not arithmetic: here it is a dozen operations on one array.

Axes: P weights of a tower.
Reference: Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsys.errors import ConfigError

Floats = NDArray[np.float32]

_BLOCK = 1 << 14
"""Weights of one pass over the formula: what it touches stays in the core's own cache."""


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


class FlatAdam:
    """Owns the storage of a tower's weights, their gradients and moments. One caller at a time.

    The parameters become views of the buffer: writing to either is seen by both.
    """

    def __init__(self, tower: nn.Module, config: AdamConfig) -> None:
        self._config = config
        named = dict(tower.named_parameters())
        self._shapes = {name: tuple(parameter.shape) for name, parameter in named.items()}
        weight_P = torch.cat([parameter.detach().reshape(-1) for parameter in named.values()])
        gradient_P = torch.zeros_like(weight_P)
        start = 0
        for parameter in named.values():
            part = slice(start, start + parameter.numel())
            parameter.data = weight_P[part].view_as(parameter)
            # Backward adds to a gradient that is there.
            parameter.grad = gradient_P[part].view_as(parameter)
            start = part.stop
        self._gradient = gradient_P
        self._weight_P: Floats = weight_P.numpy()
        self._gradient_P: Floats = gradient_P.numpy()
        self._first_P, self._second_P = np.zeros_like(self._weight_P), np.zeros_like(self._weight_P)
        self._scratch = np.empty((2, min(_BLOCK, len(self._weight_P))), np.float32)
        self.steps = 0

    def zero_grad(self) -> None:
        """Forget the gradient, before a backward."""
        self._gradient.zero_()

    def step(self, n_examples: int) -> None:
        """One step along the mean gradient; the buffer holds the sum over ``n_examples``."""
        self.steps += 1
        for start in range(0, len(self._weight_P), _BLOCK):
            self._step_part(slice(start, start + _BLOCK), n_examples)

    def _step_part(self, part: slice, n_examples: int) -> None:
        config = self._config
        first_P, second_P, weight_P = self._first_P[part], self._second_P[part], self._weight_P[part]
        one_P, other_P = (scratch[: len(weight_P)] for scratch in self._scratch)
        mean_P = np.multiply(self._gradient_P[part], np.float32(1.0 / n_examples), out=one_P)
        change_P = np.subtract(mean_P, first_P, out=other_P)
        change_P *= np.float32(1.0 - config.first_decay)
        first_P += change_P
        change_P = np.subtract(np.square(mean_P, out=one_P), second_P, out=one_P)
        change_P *= np.float32(1.0 - config.second_decay)
        second_P += change_P
        spread = 1.0 / (1.0 - config.second_decay**self.steps)
        root_P = np.sqrt(np.multiply(second_P, np.float32(spread), out=one_P), out=one_P)
        root_P += np.float32(config.epsilon)
        rate = config.learning_rate / (1.0 - config.first_decay**self.steps)
        step_P = np.multiply(first_P, np.float32(rate), out=other_P)
        step_P /= root_P
        weight_P -= step_P

    def moments(self) -> Iterator[tuple[str, Floats, Floats]]:
        """(name, first, second) of each parameter; the arrays are views and may be written."""
        start = 0
        for name, shape in self._shapes.items():
            part = slice(start, start + int(np.prod(shape)))
            yield name, self._first_P[part].reshape(shape), self._second_P[part].reshape(shape)
            start = part.stop
