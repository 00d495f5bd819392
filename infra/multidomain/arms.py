"""The models that are compared, each as a function from the widths of the single net to its settings.

All have the widths of the single net, scaled where that makes their cost equal (``costs``). Sizes that
a model has besides are those of its paper, scaled alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recsys.multidomain.ada_sparse import AdaSparseConfig
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig
from recsys.multidomain.domain_net import DomainNetConfig
from recsys.multidomain.hamur import HamurConfig
from recsys.multidomain.m2m import M2MConfig
from recsys.multidomain.mmoe import MMoEConfig
from recsys.multidomain.pepnet import PEPNetConfig
from recsys.multidomain.ple import PLEConfig
from recsys.multidomain.sar_net import SARNetConfig
from recsys.multidomain.shared_bottom import SharedBottomConfig
from recsys.multidomain.single_net import SingleNetConfig
from recsys.multidomain.star import StarConfig

Hidden = tuple[int, ...]
Make = Callable[[Hidden, float], DomainNetConfig]
"""(scaled hidden widths, the scale) to a net's settings."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One model of the comparison."""

    make: Make
    random_domains: int = 0
    """Rows are given one of so many domains at random instead of their own; 0: their own."""
    is_control: bool = False
    """Not a model that one would use: it shows where a gain comes from."""
    needs_users: bool = False
    """Its first two features must be user and item."""
    hides_domain: bool = False
    """It is told nothing of the domain, so no other feature may tell it."""


def _adapt(**settings: Any) -> Make:
    clusters = ClusterConfig(**settings)
    return lambda hidden, _: AdaptDHMConfig(hidden=hidden, clusters=clusters)


def scaled(width: int, scale: float) -> int:
    """A width times a scale, at least 1."""
    return max(1, round(width * scale))


def _by_domain(hidden: Hidden, scale: float) -> DomainNetConfig:
    return StarConfig(hidden=hidden, norm=None, auxiliary=None)


MODELS: dict[str, Arm] = {
    "single": Arm(lambda hidden, _: SingleNetConfig(hidden=hidden)),
    "shared_bottom": Arm(
        lambda hidden, _: SharedBottomConfig(hidden=hidden[:-1] or hidden, tower=hidden[-1:])
    ),
    "mmoe": Arm(lambda hidden, _: MMoEConfig(hidden=hidden[:-1] or hidden, tower=hidden[-1:])),
    "ple": Arm(
        lambda hidden, _: PLEConfig(
            levels=tuple((width,) for width in hidden[:-1] or hidden), tower=hidden[-1:]
        )
    ),
    "star": Arm(lambda hidden, scale: StarConfig(hidden=hidden, auxiliary=(scaled(32, scale),))),
    "pepnet": Arm(
        lambda hidden, scale: PEPNetConfig(
            hidden=hidden, gate_hidden=scaled(64, scale), prior_features=(0, 1)
        ),
        needs_users=True,
    ),
    "sar_net": Arm(
        lambda hidden, scale: SARNetConfig(
            expert_dim=scaled(16, scale), hidden=(scaled(32, scale), scaled(32, scale))
        )
    ),
    "ada_sparse": Arm(lambda hidden, _: AdaSparseConfig(hidden=hidden)),
    "hamur": Arm(
        lambda hidden, scale: HamurConfig(hidden=hidden, rank=scaled(35, scale), hyper=(scaled(64, scale),))
    ),
    "m2m": Arm(lambda hidden, scale: M2MConfig(expert_dim=scaled(16, scale), feed_forward=scaled(32, scale))),
    "adapt_dhm": Arm(_adapt()),
    "adapt_dhm_soft": Arm(lambda hidden, _: AdaptDHMConfig(hidden=hidden, soft=True)),
    "adapt_dhm_label_free": Arm(
        lambda hidden, _: AdaptDHMConfig(hidden=hidden, label_free=True), hides_domain=True
    ),
    "adapt_dhm_paper": Arm(_adapt(update="paper", rounds=3)),
    "adapt_dhm_swr": Arm(_adapt(update="swr", rounds=3)),
    "adapt_dhm_adl": Arm(_adapt(update="adl")),
    "one_cluster": Arm(_adapt(clusters=1), is_control=True),
    "by_domain": Arm(_by_domain, is_control=True),
    "random_routing": Arm(_by_domain, random_domains=3, is_control=True),
}

SWEEPS: dict[str, dict[str, str]] = {
    "clusters": {
        "1": "one_cluster",
        "2": "adapt_dhm_clusters_2",
        "3": "adapt_dhm",
        "5": "adapt_dhm_clusters_5",
        "8": "adapt_dhm_clusters_8",
    },
    "rounds": {"1": "adapt_dhm", "3": "adapt_dhm_rounds_3", "5": "adapt_dhm_rounds_5"},
    "memory": {".5": "adapt_dhm_memory_50", ".9": "adapt_dhm", ".99": "adapt_dhm_memory_99"},
    "temperature": {
        ".05": "adapt_dhm_temperature_05",
        ".1": "adapt_dhm",
        ".3": "adapt_dhm_temperature_30",
    },
    "domain label": {"seen": "adapt_dhm", "hidden": "adapt_dhm_label_free"},
}
"""Setting to its values, each with the model that has it; the plain ``adapt_dhm`` is in each."""

SWEPT: dict[str, Arm] = {
    "adapt_dhm_clusters_2": Arm(_adapt(clusters=2)),
    "adapt_dhm_clusters_5": Arm(_adapt(clusters=5)),
    "adapt_dhm_clusters_8": Arm(_adapt(clusters=8)),
    "adapt_dhm_rounds_3": Arm(_adapt(rounds=3)),
    "adapt_dhm_rounds_5": Arm(_adapt(rounds=5)),
    "adapt_dhm_memory_50": Arm(_adapt(memory=0.5)),
    "adapt_dhm_memory_99": Arm(_adapt(memory=0.99)),
    "adapt_dhm_temperature_05": Arm(_adapt(temperature=0.05)),
    "adapt_dhm_temperature_30": Arm(_adapt(temperature=0.3)),
}

ARMS = MODELS | SWEPT
