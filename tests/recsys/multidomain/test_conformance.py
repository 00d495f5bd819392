"""Every multi-domain net keeps the same promises."""

import pytest

from recsys.checks.multidomain_checks import multidomain_checks
from recsys.multidomain.adapt_dhm import AdaptDHMConfig
from recsys.multidomain.distribution_clusters import ClusterConfig
from recsys.multidomain.mmoe import MMoEConfig
from recsys.multidomain.shared_bottom import SharedBottomConfig
from recsys.multidomain.single_net import SingleNetConfig

EARLY = ClusterConfig(rows_per_move=32, warm_up_moves=4)
NETS = {
    "single": SingleNetConfig(hidden=(8,)),
    "shared_bottom": SharedBottomConfig(hidden=(8,), tower=(4,)),
    "mmoe": MMoEConfig(hidden=(8,), tower=(4,)),
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
