"""Every multi-domain net keeps the same promises."""

import pytest

from recsys.checks.multidomain_checks import multidomain_checks
from recsys.multidomain.ada_sparse import AdaSparseConfig
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig
from recsys.multidomain.hamur import HamurConfig
from recsys.multidomain.m2m import M2MConfig
from recsys.multidomain.mmoe import MMoEConfig
from recsys.multidomain.pepnet import PEPNetConfig
from recsys.multidomain.ple import PLEConfig
from recsys.multidomain.sar_net import SARNetConfig
from recsys.multidomain.shared_bottom import SharedBottomConfig
from recsys.multidomain.single_net import SingleNetConfig
from recsys.multidomain.star import StarConfig

EARLY = ClusterConfig(rows_per_move=32, warm_up_moves=4)
NETS = {
    "single": SingleNetConfig(hidden=(8,)),
    "shared_bottom": SharedBottomConfig(hidden=(8,), tower=(4,)),
    "mmoe": MMoEConfig(hidden=(8,), tower=(4,)),
    "ple": PLEConfig(levels=((8,), (8,)), tower=(4,)),
    "star": StarConfig(hidden=(8,)),
    "star_bare": StarConfig(hidden=(8,), norm=None, auxiliary=None),
    "pepnet": PEPNetConfig(hidden=(8,), gate_hidden=8, prior_features=(0, 1)),
    "sar_net": SARNetConfig(expert_dim=4, hidden=(8,)),
    "ada_sparse": AdaSparseConfig(hidden=(8, 4)),
    "hamur": HamurConfig(hidden=(8, 6), adapters=2, rank=3, hyper=(5,)),
    "m2m": M2MConfig(heads=1, expert_dim=8),
    "adapt_dhm": AdaptDHMConfig(hidden=(8,), clusters=EARLY),
    "adapt_dhm_last": AdaptDHMConfig(hidden=(8,), clusters=EARLY, head="product_last"),
    "adapt_dhm_soft": AdaptDHMConfig(hidden=(8,), clusters=EARLY, soft=True),
    "adapt_dhm_label_free": AdaptDHMConfig(hidden=(8,), clusters=EARLY, label_free=True),
    "adapt_dhm_swr": AdaptDHMConfig(hidden=(8,), clusters=ClusterConfig(update="swr", rounds=3)),
}


@pytest.mark.parametrize("check", multidomain_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("net", NETS)
def test_net_keeps_its_promises(net, check):
    check(NETS[net])
