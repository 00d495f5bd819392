"""DeepFM over two features in plain numpy: the dense part of every arm, forward and backward.

Small batches spend most of their time in PyTorch's bookkeeping; written out, a step takes a quarter of it.

Axes: B examples, C = 1 + K columns of a row (wide, vector), X = 2·K inputs of the MLP, H and G columns of
its hidden layers. Rows are (B, 2, C): the user's, then the movie's.
Reference: Guo et al., "DeepFM", IJCAI 2017, arXiv:1703.04247.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """What a forward pass leaves for the backward one."""

    rows_B2C: Floats
    inputs_BX: Floats
    first_BH: Floats
    second_BG: Floats
    logit_B: Floats


class DeepFM:
    """Log-odds from a user's and a movie's row, with Adagrad over its own weights. One thread only."""

    def __init__(self, *, vector_dim: int, hidden: tuple[int, int], learning_rate: float, seed: int) -> None:
        shapes = [(2 * vector_dim, hidden[0]), hidden, (hidden[1], 1)]
        random = np.random.default_rng([seed, 3])
        self._rate = np.float32(learning_rate)
        self._flat = np.zeros(sum(n * m + m for n, m in shapes), dtype=np.float32)
        self._squares = np.full_like(self._flat, 0.1)
        self._gradient = np.zeros_like(self._flat)
        self.weights = _views(self._flat, shapes)
        self._gradients = _views(self._gradient, shapes)
        for weight, _ in self.weights:
            limit = np.sqrt(6.0 / sum(weight.shape))  # Glorot & Bengio, 2010
            weight[:] = random.uniform(-limit, limit, weight.shape)

    def forward(self, rows_B2C: Floats) -> Activations:
        """Log-odds and what led to them."""
        (w1, b1), (w2, b2), (w3, b3) = self.weights
        inputs_BX = rows_B2C[:, :, 1:].reshape(len(rows_B2C), -1)
        first_BH = np.maximum(inputs_BX @ w1 + b1, 0.0)
        second_BG = np.maximum(first_BH @ w2 + b2, 0.0)
        k = inputs_BX.shape[1] // 2
        pair_B = np.einsum("bk,bk->b", inputs_BX[:, :k], inputs_BX[:, k:])
        logit_B = rows_B2C[:, 0, 0] + rows_B2C[:, 1, 0] + pair_B + (second_BG @ w3)[:, 0] + b3
        return Activations(rows_B2C, inputs_BX, first_BH, second_BG, logit_B)

    def backward(self, seen: Activations, label_B: Floats) -> Floats:
        """Gradient of the summed log loss at the rows, (B, 2, C); the dense part's is kept for ``step``."""
        (w1, _), (w2, _), (w3, _) = self.weights
        (dw1, db1), (dw2, db2), (dw3, db3) = self._gradients
        d_B = probability(seen.logit_B) - label_B
        np.matmul(seen.second_BG.T, d_B[:, None], out=dw3)
        db3[0] = d_B.sum()
        d_BG = d_B[:, None] * w3.T
        d_BG *= seen.second_BG > 0.0
        np.matmul(seen.first_BH.T, d_BG, out=dw2)
        d_BG.sum(axis=0, out=db2)
        d_BH = d_BG @ w2.T
        d_BH *= seen.first_BH > 0.0
        np.matmul(seen.inputs_BX.T, d_BH, out=dw1)
        d_BH.sum(axis=0, out=db1)
        d_B2K = (d_BH @ w1.T).reshape(len(d_B), 2, -1)
        gradient_B2C = np.empty_like(seen.rows_B2C)
        gradient_B2C[:, :, 0] = d_B[:, None]
        # The derivative of a dot product by one factor is the other factor.
        gradient_B2C[:, :, 1:] = d_B2K + d_B[:, None, None] * seen.rows_B2C[:, ::-1, 1:]
        return gradient_B2C

    def step(self) -> None:
        """One Adagrad step of the dense weights along the last backward pass: n += g²; w -= lr·g/√n."""
        self._squares += np.square(self._gradient)
        self._flat -= self._rate * self._gradient / np.sqrt(self._squares)

    def gradients(self) -> list[tuple[Floats, Floats]]:
        """Of the last backward pass, by layer: weight and bias. Views."""
        return self._gradients


def probability(logit_B: Floats) -> Floats:
    """1 / (1 + e^-x), without overflow."""
    out_B: Floats = 0.5 * (1.0 + np.tanh(0.5 * logit_B))
    return out_B


def _views(flat: Floats, shapes: list[tuple[int, int]]) -> list[tuple[Floats, Floats]]:
    """(n, m) weights and (m,) biases of each layer, one after another in ``flat``."""
    views, start = [], 0
    for n, m in shapes:
        stop = start + n * m
        views.append((flat[start:stop].reshape(n, m), flat[stop : stop + m]))
        start = stop + m
    return views
