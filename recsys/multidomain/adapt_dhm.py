"""AdaptDHM: rows find their cluster by themselves, and each cluster has a network of its own.

The vectors of a row decide which of K clusters it belongs to (``distribution_clusters``); the row then
passes the cluster's network, whose weights are shared ones times its own (``product_mlp``). Parameters
grow with K and not with the number of domains, a row costs one network, and an unseen domain needs
nothing: no weight belongs to a domain.

Axes: B examples, F features, V columns of a vector, K clusters, O outputs.
Reference: Li et al., "AdaptDHM: Adaptive Distribution Hierarchical Model for Multi-Domain CTR
Prediction", arXiv:2211.12105; deviations are listed in docs/papers/adaptdhm.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.multidomain.bucketed_mlp import Buckets
from recsys.multidomain.cluster_updates import coefficients_BK
from recsys.multidomain.distribution_clusters import ClusterConfig, DistributionClusters
from recsys.multidomain.domain_net import DomainNet, NetShape
from recsys.multidomain.product_mlp import Head, ProductMLP
from recsys.ranking.tower import check_hidden
from recsys.table.ranks import Ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptDHMConfig:
    """Clusters and the networks behind them."""

    clusters: ClusterConfig = field(default_factory=ClusterConfig)
    """How rows are routed."""
    hidden: tuple[int, ...] = (128, 64, 32)
    """Hidden layers of a cluster's network; at least one."""
    head: Head = "product_all"
    """Which layers are products of shared and own weights."""
    soft: bool = False
    """Mix all clusters' outputs by the row's coefficients: K times the cost."""
    routing_features: tuple[int, ...] | None = None
    """Places of the features that routing looks at; None: all."""
    label_free: bool = False
    """Keep the domain's feature from routing and networks alike."""
    ranks: Ranks | None = None
    """Of data-parallel training: all ranks hold one set of centres."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        if self.routing_features is not None and not self.routing_features:
            raise ConfigError("routing_features must name at least one feature, or be None for all")

    def build(self, shape: NetShape, generator: torch.Generator) -> AdaptDHM:
        """The net at its initial weights. Raises ConfigError for a feature that is not there."""
        return AdaptDHM(self, shape, generator)


class AdaptDHM(DomainNet):
    """Each row through the network of the cluster that its vectors point to."""

    reads_domain: ClassVar[bool] = False

    def __init__(self, config: AdaptDHMConfig, shape: NetShape, generator: torch.Generator) -> None:
        super().__init__()
        hidden_from = {shape.domain_feature} if config.label_free else set()
        seen = [place for place in range(shape.n_features) if place not in hidden_from]
        asked = seen if config.routing_features is None else list(config.routing_features)
        routed = [place for place in asked if place not in hidden_from]
        if not routed or not set(routed) <= set(seen):
            raise ConfigError(f"routing_features: want places among {seen}, got {asked}")
        self._seen = None if len(seen) == shape.n_features else seen
        self._routed = None if routed == list(range(shape.n_features)) else routed
        self._soft = config.soft
        self.clusters = DistributionClusters(
            config.clusters, len(routed) * shape.dim, generator, config.ranks
        )
        widths = (len(seen) * shape.dim, *config.hidden, shape.n_out)
        self.net = ProductMLP(config.clusters.clusters, widths, generator, head=config.head)

    def route(self, vector_BFV: Tensor) -> Tensor:
        """Cluster of each row, int64 (B,)."""
        return self.clusters.route(_columns(vector_BFV.detach(), self._routed))

    def forward(self, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
        x_BI = _columns(vector_BFV, self._seen)
        is_same = self._routed == self._seen
        e_BD = x_BI.detach() if is_same else _columns(vector_BFV.detach(), self._routed)
        if self.training and torch.is_grad_enabled():
            self.clusters.note(e_BD)
        if not self._soft:
            hard_BO: Tensor = self.net(x_BI, self.clusters.route(e_BD))
            return hard_BO
        r_BK = coefficients_BK(self.clusters.similarity_BK(e_BD))
        n_rows, k = r_BK.shape
        every = Buckets(None, list(range(k)), [n_rows] * k)
        all_KBO: Tensor = self.net(x_BI.repeat(k, 1), every).view(k, n_rows, -1)
        return (all_KBO * r_BK.T.unsqueeze(2)).sum(dim=0)

    def adapt(self) -> None:
        """Move the centres towards the rows of the last training pass."""
        self.clusters.adapt()

    def fold(self) -> None:
        """Form the clusters' weights, and what routing needs of the centres, once."""
        self.clusters.fold()
        self.net.fold()


def _columns(vector_BFV: Tensor, places: list[int] | None) -> Tensor:
    """The vectors of some features, all without ``places``, side by side."""
    return vector_BFV.flatten(1) if places is None else vector_BFV[:, places].flatten(1)
