"""Models of many domains as they are usually written: every domain's network on every row, then a pick.

They hold the very modules that they stand for, so that weights, outputs and gradients are the same.

Axes: B rows, S domains, H columns of an expert's output, E experts, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recsys.multidomain.bucketed_mlp import MLPBank
from recsys.multidomain.domain_net import DomainNet
from recsys.multidomain.mmoe import MMoE
from recsys.multidomain.shared_bottom import SharedBottom
from recsys.multidomain.star import Star

Layer = tuple[Tensor, Tensor]


class NaiveStar(DomainNet):
    """All domains' product networks, without the norm and the auxiliary net. As any DomainNet."""

    def __init__(self, star: Star) -> None:
        super().__init__()
        self.star = star

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        network, x_BI = self.star.network, vector_BFV.flatten(1)
        shared = list(zip(network.shared_weights, network.shared_biases, strict=True))
        own = list(zip(network.own_weights, network.own_biases, strict=True))
        of_each = []
        for one in range(network.n_sets):
            layers = [
                (w * own_w[one], b + own_b[one]) for (w, b), (own_w, own_b) in zip(shared, own, strict=True)
            ]
            of_each.append(_passed(x_BI, layers, ends_linear=True))
        return _picked(of_each, domain_B)


class NaiveSharedBottom(DomainNet):
    """All domains' towers behind the shared MLP. As any DomainNet."""

    def __init__(self, net: SharedBottom) -> None:
        super().__init__()
        self.net = net

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        h_BH = self.net.bottom(vector_BFV.flatten(1))
        towers = self.net.towers
        return _picked([_of_set(towers, one, h_BH) for one in range(towers.n_sets)], domain_B)


class NaiveMMoE(DomainNet):
    """All domains' gates, mixtures and towers. As any DomainNet."""

    def __init__(self, net: MMoE) -> None:
        super().__init__()
        self.net = net

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        net, x_BI = self.net, vector_BFV.flatten(1)
        output_BEH = torch.stack([expert(x_BI) for expert in net.experts], dim=1)
        of_each = []
        for one in range(net.towers.n_sets):
            share_BE = torch.softmax(_of_set(net.gates, one, x_BI), dim=1)
            mixed_BH = (share_BE.unsqueeze(2) * output_BEH).sum(dim=1)
            of_each.append(_of_set(net.towers, one, mixed_BH))
        return _picked(of_each, domain_B)


def _of_set(bank: MLPBank, one: int, x_BI: Tensor) -> Tensor:
    layers = [(w[one], b[one]) for w, b in zip(bank.weights, bank.biases, strict=True)]
    return _passed(x_BI, layers, ends_linear=bank.ends_linear)


def _passed(h: Tensor, layers: Sequence[Layer], *, ends_linear: bool) -> Tensor:
    for number, (weight_IO, bias_O) in enumerate(layers, start=1):
        h = torch.addmm(bias_O, h, weight_IO)
        if number < len(layers) or not ends_linear:
            h = torch.relu(h)
    return h


def _picked(of_each: Sequence[Tensor], domain_B: Tensor) -> Tensor:
    out_SBO = torch.stack(list(of_each))
    at_1BO = domain_B.view(1, -1, 1).expand(1, -1, out_SBO.shape[2])
    return out_SBO.gather(0, at_1BO).squeeze(0)
