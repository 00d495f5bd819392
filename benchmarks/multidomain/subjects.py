"""The models that are timed, at widths that give each row's own path the layers of one plain MLP.

Axes: B rows of a batch, F features, V columns of a vector, N domains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from multidomain.naive import NaiveMMoE, NaiveSharedBottom, NaiveStar
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig
from recsys.multidomain.domain_index import FeatureDomains
from recsys.multidomain.domain_net import DomainNet, DomainNetConfig
from recsys.multidomain.mmoe import MMoEConfig
from recsys.multidomain.ple import PLEConfig
from recsys.multidomain.shared_bottom import SharedBottomConfig
from recsys.multidomain.single_net import SingleNetConfig
from recsys.multidomain.star import StarConfig
from recsys.multidomain.tower import MultiDomainConfig, MultiDomainTower
from recsys.ranking.adam import AdamConfig, FlatAdam

SEED = 0
HIDDEN, B, F, V, K = (256, 128, 64), 1024, 11, 16, 3
DOMAIN_FEATURE = 0
BOTTOM, TOP = HIDDEN[:-1], HIDDEN[-1:]
# Centres start at the third batch, so that a few untimed steps lead to the state of long training.
CLUSTERS = ClusterConfig(clusters=K, warm_up_moves=2)

NETS: dict[str, DomainNetConfig] = {
    "single": SingleNetConfig(hidden=HIDDEN),
    "adapt": AdaptDHMConfig(hidden=HIDDEN, clusters=CLUSTERS),
    "adapt_soft": AdaptDHMConfig(hidden=HIDDEN, clusters=CLUSTERS, soft=True),
    "star": StarConfig(hidden=HIDDEN),
    "star_plain": StarConfig(hidden=HIDDEN, norm=None, auxiliary=None),
    "shared_bottom": SharedBottomConfig(hidden=BOTTOM, tower=TOP),
    "mmoe": MMoEConfig(hidden=BOTTOM, tower=TOP),
    "ple": PLEConfig(levels=tuple((width,) for width in BOTTOM), tower=TOP),
}
NAIVE: dict[str, tuple[str, Callable[..., DomainNet]]] = {
    "naive_star": ("star_plain", NaiveStar),
    "naive_shared_bottom": ("shared_bottom", NaiveSharedBottom),
    "naive_mmoe": ("mmoe", NaiveMMoE),
}
ALL = (*NETS, *NAIVE)


@dataclass(frozen=True, slots=True)
class Batch:
    """Pooled rows with a gradient, their domains, their labels."""

    pooled_BW: Tensor
    domain_B: Tensor
    label_B: Tensor


def batches(n_domains: int, count: int, n_rows: int = B) -> list[Batch]:
    """Rows whose domain's own vector, and two more, point where the domain's do."""
    generator = torch.Generator().manual_seed(SEED)
    towards_NFV = torch.randn(n_domains, F, V, generator=generator)
    towards_NFV[:, 3:] = 0.0
    made = []
    for _ in range(count):
        domain_B = torch.randint(n_domains, (n_rows,), generator=generator)
        rows_BFD = 0.1 * torch.randn(n_rows, F, 1 + V, generator=generator)
        rows_BFD[..., 1:] += 0.1 * towards_NFV[domain_B]
        label_B = (torch.rand(n_rows, generator=generator) < 0.5).float()
        made.append(Batch(rows_BFD.flatten(1).requires_grad_(), domain_B, label_B))
    return made


def tower_of(name: str, n_domains: int) -> MultiDomainTower:
    """A model's tower in training, of ``n_domains``, the one for those not known among them."""
    like, wrap = NAIVE.get(name, (name, None))
    tower = MultiDomainConfig(
        n_features=F,
        vector_dim=V,
        domains=FeatureDomains(feature=DOMAIN_FEATURE, values=tuple(range(n_domains - 1))),
        domain_feature=DOMAIN_FEATURE,
        net=NETS[like],
        seed=SEED,
    ).build()
    if wrap is not None:
        tower.net = wrap(tower.net)
    return tower


class Subject:
    """A tower that learns. One caller at a time."""

    def __init__(self, name: str, n_domains: int) -> None:
        self.tower = tower_of(name, n_domains)
        self.n_parameters = sum(parameter.numel() for parameter in self.tower.net.parameters())
        self._adam = FlatAdam(self.tower, AdamConfig())

    def flops_per_row(self, batch: Batch) -> float:
        """Of matrix products forward; a multiply-add is two."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self._loss(batch)
        return float(counter.get_total_flops()) / len(batch.label_B)

    def step(self, batch: Batch) -> tuple[float, float]:
        """Milliseconds of one whole step, and of its passes forward and backward alone."""
        batch.pooled_BW.grad = None
        begun = time.perf_counter()
        self._adam.zero_grad()
        self._loss(batch).backward()  # type: ignore[no-untyped-call]
        passed = time.perf_counter()
        self._adam.step(len(batch.label_B))
        self.tower.adapt()
        return 1e3 * (time.perf_counter() - begun), 1e3 * (passed - begun)

    def _loss(self, batch: Batch) -> Tensor:
        logit_B = self.tower(batch.pooled_BW, batch.domain_B)[:, 0]
        return torch.nn.functional.binary_cross_entropy_with_logits(logit_B, batch.label_B, reduction="sum")
