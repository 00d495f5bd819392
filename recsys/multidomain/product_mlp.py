"""ProductMLP: each set's weights are shared ones times its own, element by element.

``W_s = W * V_s`` and ``b_s = b + c_s`` in every layer: the shared ``W`` learns from every row, the
specific ``V_s`` from the rows of set s only. At the start ``V_s`` is 1 and the biases are 0, so that
all sets are one plain MLP; two random factors would shrink the product's variance.

Sheng et al., "One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
Prediction", CIKM 2021, arXiv:2101.11427, with a set for a domain.

Axes: B rows, S sets, P sets present in a batch, I columns into a layer, O out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.multidomain.bucketed_mlp import Buckets, LayerOf, bucketed_mlp, glorot

Head = Literal["product_all", "product_last"]
"""Which layers are products: all of them, or the last one behind hidden layers of each set's own."""


class ProductMLP(nn.Module):
    """MLPs of the same ``widths`` (input first) and a linear last layer, of which each row passes one.

    ``product_all`` holds (1 + S) times one MLP's parameters. Any number of callers of forward in
    evaluation, one in training; ``fold`` and ``train`` with nobody else inside.
    """

    def __init__(
        self,
        n_sets: int,
        widths: Sequence[int],
        generator: torch.Generator,
        *,
        head: Head = "product_all",
    ) -> None:
        super().__init__()
        if n_sets < 1 or len(widths) < 2 or head not in get_args(Head):
            raise ConfigError(
                f"want n_sets >= 1, at least two widths and head one of {get_args(Head)}; "
                f"got {n_sets}, {tuple(widths)} and {head!r}"
            )
        layers = list(pairwise(widths))
        products = layers if head == "product_all" else layers[-1:]
        separate = layers[: len(layers) - len(products)]
        self.n_sets = n_sets
        own = [torch.stack([glorot(*layer, generator) for _ in range(n_sets)]) for layer in separate]
        own += [torch.ones(n_sets, *layer) for layer in products]
        # The lists of shared ones are as long as there are products, which come last.
        self.shared_weights = nn.ParameterList(nn.Parameter(glorot(*layer, generator)) for layer in products)
        self.shared_biases = nn.ParameterList(nn.Parameter(torch.zeros(n_out)) for _, n_out in products)
        self.own_weights = nn.ParameterList(nn.Parameter(weight_SIO) for weight_SIO in own)
        self.own_biases = nn.ParameterList(nn.Parameter(torch.zeros(n_sets, n_out)) for _, n_out in layers)
        self._folded: list[LayerOf] | None = None

    def forward(self, x_BI: Tensor, index_B: Tensor) -> Tensor:
        """Outputs, (B, O), of each row's own network; ``index_B`` holds int64 in 0 to S - 1."""
        buckets = Buckets.of(index_B, self.n_sets)
        if self._folded is not None:
            return bucketed_mlp(x_BI, buckets, self._folded, ends_linear=True)
        # Products of the sets present only, hence counted anew: bucket j has network j of these.
        present = replace(buckets, sets=list(range(len(buckets.sets))))
        return bucketed_mlp(x_BI, present, self._layers(buckets.sets), ends_linear=True)

    def fold(self) -> None:
        """Form all products once, of weights that will change no more; ``train`` forgets them.

        Raises ConfigError in training.
        """
        if self.training:
            raise ConfigError("a net in training cannot be folded; call eval() first")
        with torch.no_grad():
            self._folded = self._layers(range(self.n_sets))

    def train(self, mode: bool = True) -> Self:
        """As of any module; training forgets folded products."""
        if mode:
            self._folded = None
        return super().train(mode)

    def _layers(self, sets: Sequence[int]) -> list[LayerOf]:
        """Every layer's weights and biases of ``sets``, in their order, (P,) each."""
        # One unbind, not an index per set: the gradient is then put together once.
        own_weights = [[every_S[one] for one in sets] for every_S in (w.unbind(0) for w in self.own_weights)]
        own_biases = [[every_S[one] for one in sets] for every_S in (b.unbind(0) for b in self.own_biases)]
        n_separate = len(own_weights) - len(self.shared_weights)
        layers = [
            LayerOf(weight_P, bias_P)
            for weight_P, bias_P in zip(own_weights[:n_separate], own_biases[:n_separate], strict=True)
        ]
        for weight_IO, bias_O, weight_P, bias_P in zip(
            self.shared_weights,
            self.shared_biases,
            own_weights[n_separate:],
            own_biases[n_separate:],
            strict=True,
        ):
            layers.append(LayerOf([weight_IO * own for own in weight_P], [bias_O + own for own in bias_P]))
        return layers
