"""ProductMLP: each set's weights are shared ones times its own, element by element.

``W_s = W * V_s`` and ``b_s = b + c_s`` in every layer: the shared ``W`` learns from every row, the
specific ``V_s`` from the rows of set s only. At the start ``V_s`` is 1 and the biases are 0, so that
all sets are one plain MLP; two random factors would shrink the product's variance.

Sheng et al., "One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
Prediction", CIKM 2021, arXiv:2101.11427, with a set for a domain.

Axes: B rows, S sets, I columns into a layer, O out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.multidomain.bucketed_mlp import Buckets, Network, bucketed_mlp, bucketed_networks, glorot
from recsys.multidomain.grouped_linear import LayerOf

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
        self._folded: dict[int, Network] | None = None

    def forward(self, x_BI: Tensor, index_B: Tensor | Buckets) -> Tensor:
        """Outputs, (B, O), of each row's own network: its index, int64, or the buckets that these make."""
        buckets = index_B if isinstance(index_B, Buckets) else Buckets.of(index_B, self.n_sets)
        # Folded products pass no gradient on.
        if self._folded is not None and not torch.is_grad_enabled():
            return bucketed_networks(x_BI, buckets, self._folded, ends_linear=True)
        return bucketed_mlp(x_BI, buckets, self._layers(), ends_linear=True)

    def fold(self) -> None:
        """Form all products once, of weights that will change no more; ``train`` forgets them.

        Raises ConfigError in training.
        """
        if self.training:
            raise ConfigError("a net in training cannot be folded; call eval() first")
        with torch.no_grad():
            layers = self._layers()
            self._folded = {one: [layer.of_set(one) for layer in layers] for one in range(self.n_sets)}

    def train(self, mode: bool = True) -> Self:
        """As of any module; training forgets folded products."""
        if mode:
            self._folded = None
        return super().train(mode)

    def _layers(self) -> list[LayerOf]:
        """Every layer, its products not formed yet: that is for the sets present alone."""
        n_separate = len(self.own_weights) - len(self.shared_weights)
        layers = []
        for number, (own_SIO, own_SO) in enumerate(zip(self.own_weights, self.own_biases, strict=True)):
            if number < n_separate:
                layers.append(LayerOf(own_SIO, own_SO))
            else:
                shared_IO, shared_O = (
                    shared[number - n_separate] for shared in (self.shared_weights, self.shared_biases)
                )
                layers.append(LayerOf(own_SIO, shared_O + own_SO, shared_IO))
        return layers
