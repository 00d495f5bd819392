"""What every multi-domain net promises, as checks that take its settings.

    @pytest.mark.parametrize("check", multidomain_checks(), ids=lambda check: check.__name__)
    def test_my_net_keeps_its_promises(check):
        check(MyNetConfig())

The name of a check is the promise. A net is built for five features of three columns, one of which is
the domain's, for three domains and for the rest of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.multidomain.domain_net import DomainNet, DomainNetConfig, NetShape
from recsys.ranking.tower import export_weights, import_weights

Check = Callable[[DomainNetConfig], None]

N_FEATURES, DIM, N_DOMAINS = 5, 3, 4
SAME = 1e-5
"""Sums of other batches are rounded in another order."""


def shape_of(n_out: int = 1) -> NetShape:
    """What the checks build a net for."""
    return NetShape(
        n_features=N_FEATURES, dim=DIM, n_out=n_out, n_domains=N_DOMAINS, domain_feature=N_FEATURES - 1
    )


def built(config: DomainNetConfig, *, seed: int = 0, n_out: int = 1) -> DomainNet:
    """A net at its initial weights."""
    return config.build(shape_of(n_out), torch.Generator().manual_seed(seed))


def rows(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(vectors (n, F, V), domains (n,)); a domain's own vectors are the same in each of its rows."""
    random = np.random.default_rng(seed)
    domain_B = random.integers(0, N_DOMAINS - 1, n)
    vector_BFV = random.normal(size=(n, N_FEATURES, DIM))
    vector_BFV[:, -1] = np.random.default_rng(99).normal(size=(N_DOMAINS, DIM))[domain_B]
    return torch.tensor(vector_BFV, dtype=torch.float32), torch.tensor(domain_B)


def trained(config: DomainNetConfig, *, steps: int = 40, n: int = 64) -> DomainNet:
    """A net after some steps on labels that depend on the domain."""
    net = built(config)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(steps):
        vector_BFV, domain_B = rows(n, seed=step)
        optimizer.zero_grad()
        _loss(net, vector_BFV, domain_B).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        net.adapt()
    return net


def multidomain_checks() -> list[Check]:
    """Every check."""
    return [
        check_the_same_seed_gives_the_same_bits,
        check_it_learns,
        check_a_forward_pass_changes_no_state,
        check_its_state_restores_its_outputs,
        check_the_same_rows_give_the_same_bits_in_evaluation,
        check_neither_order_nor_neighbours_change_a_row_s_output,
        check_an_unknown_domain_is_answered,
        check_a_net_that_reads_no_domain_gives_the_same_in_any,
        check_one_row_can_be_learned,
        check_a_domain_without_rows_does_no_harm,
        check_it_has_as_many_outputs_as_asked_for,
        check_the_vectors_get_a_gradient,
        check_folding_changes_no_output,
    ]


def check_the_same_seed_gives_the_same_bits(config: DomainNetConfig) -> None:
    torch.manual_seed(1)
    one = export_weights(built(config), for_learning=True)
    torch.manual_seed(2)
    same, other = (export_weights(built(config, seed=seed), for_learning=True) for seed in (0, 1))
    assert all(np.array_equal(value, same[name]) for name, value in one.items())
    assert any(not np.array_equal(value, other[name]) for name, value in one.items())


def check_it_learns(config: DomainNetConfig) -> None:
    vector_BFV, domain_B = rows(512, seed=1_000)
    nets = built(config).eval(), trained(config).eval()
    before, after = (float(_loss(net, vector_BFV, domain_B).detach()) for net in nets)
    assert after < 0.9 * before, f"loss {before} before, {after} after"


def check_a_forward_pass_changes_no_state(config: DomainNetConfig) -> None:
    net = trained(config)
    before = export_weights(net, for_learning=True)
    _loss(net, *rows(64, seed=7)).backward()  # type: ignore[no-untyped-call]
    _outputs(net.eval(), *rows(64, seed=8))
    after = export_weights(net, for_learning=True)
    assert all(np.array_equal(value, after[name]) for name, value in before.items())


def check_its_state_restores_its_outputs(config: DomainNetConfig) -> None:
    net, restored, served = trained(config), built(config, seed=5), built(config, seed=6)
    import_weights(restored, export_weights(net, for_learning=True), for_learning=True)
    import_weights(served, export_weights(net))
    wanted = _outputs(net.eval(), *rows(64, seed=7))
    for other in (restored, served):
        assert torch.equal(_outputs(other.eval(), *rows(64, seed=7)), wanted)


def check_the_same_rows_give_the_same_bits_in_evaluation(config: DomainNetConfig) -> None:
    net = trained(config).eval()
    assert torch.equal(_outputs(net, *rows(64, seed=7)), _outputs(net, *rows(64, seed=7)))


def check_neither_order_nor_neighbours_change_a_row_s_output(config: DomainNetConfig) -> None:
    net, (vector_BFV, domain_B) = trained(config).eval(), rows(64, seed=7)
    whole = _outputs(net, vector_BFV, domain_B)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        _outputs(net, vector_BFV[order], domain_B[order]), whole[order], rtol=SAME, atol=SAME
    )
    alone = [_outputs(net, vector_BFV[[row]], domain_B[[row]]) for row in range(64)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=SAME, atol=SAME)


def check_an_unknown_domain_is_answered(config: DomainNetConfig) -> None:
    vector_BFV, _ = rows(8)
    unknown_B = torch.full((8,), N_DOMAINS - 1)
    for net in (built(config), trained(config)):
        assert torch.isfinite(_outputs(net.eval(), vector_BFV, unknown_B)).all()


def check_a_net_that_reads_no_domain_gives_the_same_in_any(config: DomainNetConfig) -> None:
    net, (vector_BFV, domain_B) = trained(config).eval(), rows(64, seed=7)
    own, others = (_outputs(net, vector_BFV, (domain_B + shift) % N_DOMAINS) for shift in (0, 1))
    assert torch.equal(own, others) is not net.reads_domain


def check_one_row_can_be_learned(config: DomainNetConfig) -> None:
    net = trained(config, n=1)
    assert all(bool(value.isfinite().all()) for value in net.state_dict().values())


def check_a_domain_without_rows_does_no_harm(config: DomainNetConfig) -> None:
    net, (vector_BFV, _) = built(config), rows(32)
    _loss(net, vector_BFV, torch.zeros(32, dtype=torch.int64)).backward()  # type: ignore[no-untyped-call]
    net.adapt()
    for name, parameter in net.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name


def check_it_has_as_many_outputs_as_asked_for(config: DomainNetConfig) -> None:
    assert _outputs(built(config, n_out=3), *rows(6)).shape == (6, 3)


def check_the_vectors_get_a_gradient(config: DomainNetConfig) -> None:
    net, (vector_BFV, domain_B) = built(config), rows(16)
    vector_BFV.requires_grad_()
    _loss(net, vector_BFV, domain_B).backward()  # type: ignore[no-untyped-call]
    assert vector_BFV.grad is not None
    assert bool(vector_BFV.grad.isfinite().all())
    assert bool(vector_BFV.grad.any())


def check_folding_changes_no_output(config: DomainNetConfig) -> None:
    net = trained(config).eval()
    plain = _outputs(net, *rows(64, seed=7))
    net.fold()
    assert torch.equal(_outputs(net, *rows(64, seed=7)), plain)


def _outputs(net: DomainNet, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = net(vector_BFV, domain_B)
    return out


def _loss(net: DomainNet, vector_BFV: Tensor, domain_B: Tensor) -> Tensor:
    """Log loss of labels whose direction turns with the domain."""
    sign_B = torch.where(domain_B % 2 == 0, 1.0, -1.0)
    label_B = (sign_B * vector_BFV.detach()[:, 0, 0] > 0).to(torch.float32)
    return torch.nn.functional.binary_cross_entropy_with_logits(net(vector_BFV, domain_B)[:, 0], label_B)
