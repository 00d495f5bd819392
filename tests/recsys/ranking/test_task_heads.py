"""Task heads against their papers' equations, one row at a time, and a funnel whose odds are known."""

import itertools
import math
from dataclasses import dataclass
from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.multidomain.domain_index import RandomDomains
from recsys.multidomain.single_net import SingleNetConfig
from recsys.multidomain.tower import MultiDomainConfig
from recsys.ranking.task_heads import ESMMHeads, MMoEHeads, PLEHeads, TaskHeads, log_odds_of_both

WIDTH, ROUNDING = 4, 1e-5
MMOE = MMoEHeads(width=WIDTH, experts=3, hidden=(5, 3), tower=(2,))
PLE = PLEHeads(width=WIDTH, levels=((5,), (4,), (3,)), shared_experts=2, task_experts=1, tower=(2,))
CGC = PLEHeads(width=WIDTH, levels=((5, 3),), shared_experts=1, task_experts=2, tower=(2,))


def heads_of(config, n_tasks, seed=0):
    """Heads whose biases are not zero either."""
    generator = torch.Generator().manual_seed(seed)
    heads = config.build(n_tasks, generator)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return heads


def rows(seed, n=5):
    return torch.rand(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


class Weights:
    """MLPs by their name in a module's state, in float64."""

    def __init__(self, module):
        self.state = {
            name: value.numpy(force=True).astype(float) for name, value in module.state_dict().items()
        }

    def mlp(self, name, x, *, ends_linear=False):
        numbers = sorted(
            int(key[len(name) + 1 :].split(".")[0])
            for key in self.state
            if key.startswith(f"{name}.") and key.endswith("weight")
        )
        for number in numbers:
            x = self.state[f"{name}.{number}.weight"] @ x + self.state[f"{name}.{number}.bias"]
            if number != numbers[-1] or not ends_linear:
                x = np.maximum(x, 0)
        return x

    def mixture(self, gate, x, outputs):
        share = softmax(self.mlp(gate, x, ends_linear=True))
        return sum(s * output for s, output in zip(share, outputs, strict=True))


def mmoe_by_hand(heads, x, n_tasks):
    w = Weights(heads)
    outputs = [w.mlp(f"experts.{e}", x) for e in range(MMOE.experts)]
    mixed = [w.mixture(f"gates.{task}", x, outputs) for task in range(n_tasks)]
    return [w.mlp(f"towers.{task}", h, ends_linear=True)[0] for task, h in enumerate(mixed)]


def ple_by_hand(config, heads, x, n_tasks):
    w, own, shared = Weights(heads), [x] * n_tasks, x
    for number in range(len(config.levels)):
        at = f"levels.{number}"
        of_task = [
            [w.mlp(f"{at}.own.{task}.{e}", own[task]) for e in range(config.task_experts)]
            for task in range(n_tasks)
        ]
        of_all = [w.mlp(f"{at}.shared.{e}", shared) for e in range(config.shared_experts)]
        own = [w.mixture(f"{at}.gates.{task}", own[task], of_task[task] + of_all) for task in range(n_tasks)]
        if number < len(config.levels) - 1:
            shared = w.mixture(f"{at}.shared_gate.0", shared, [*itertools.chain(*of_task), *of_all])
    return [w.mlp(f"towers.{task}", h, ends_linear=True)[0] for task, h in enumerate(own)]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_mmoe_mixes_shared_experts_by_each_tasks_gate(seed, n_tasks):
    heads, x_BO = heads_of(MMOE, n_tasks, seed), rows(seed)
    want = [mmoe_by_hand(heads, x, n_tasks) for x in x_BO.double().numpy()]
    np.testing.assert_allclose(heads(x_BO).numpy(force=True), want, atol=ROUNDING, rtol=ROUNDING)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 3), st.sampled_from([PLE, CGC]))
def test_ple_extracts_level_by_level_for_each_task_and_for_all(seed, n_tasks, config):
    heads, x_BO = heads_of(config, n_tasks, seed), rows(seed)
    want = [ple_by_hand(config, heads, x, n_tasks) for x in x_BO.double().numpy()]
    np.testing.assert_allclose(heads(x_BO).numpy(force=True), want, atol=ROUNDING, rtol=ROUNDING)


def test_no_parameter_of_ple_is_without_a_gradient():
    heads = heads_of(PLE, 2)
    heads(rows(0, n=50)).square().sum().backward()
    assert [name for name, parameter in heads.named_parameters() if parameter.grad is None] == []


class Given(TaskHeads):
    """Log-odds as they are given."""

    def forward(self, hidden_BO, first_order_BL=None):
        return hidden_BO if first_order_BL is None else hidden_BO + first_order_BL


@dataclass(frozen=True)
class GivenConfig:
    width: int

    def build(self, n_tasks, generator):
        return Given()


def chained(logit_BL, chain):
    config = ESMMHeads(inner=GivenConfig(len(chain)), chain=tuple(chain))
    return config.build(len(chain), torch.Generator())(logit_BL)


@st.composite
def forests(draw):
    """(chain, log-odds): a task may follow any other, in any order of indices, but never itself."""
    n_tasks = draw(st.integers(1, 5))
    names = draw(st.permutations(range(n_tasks)))
    chain = [-1] * n_tasks
    for place in range(1, n_tasks):
        before = draw(st.integers(-1, place - 1))
        chain[names[place]] = -1 if before == -1 else names[before]
    return chain, draw(st.lists(st.floats(-40, 40, width=32), min_size=n_tasks, max_size=n_tasks))


def log_odds_by_hand(chain, logits):
    """Of each task's product of probabilities, in fifty digits."""
    getcontext().prec = 50
    out = []
    for task in range(len(chain)):
        p, at = Decimal(1), task
        while at != -1:
            p, at = p / (1 + (-Decimal(logits[at])).exp()), chain[at]
        out.append(float((p / (1 - p)).ln()))
    return out


@given(forests())
def test_a_task_of_a_chain_has_the_product_of_its_probabilities(forest):
    chain, logits = forest
    got = chained(torch.tensor([logits]), chain)[0]
    np.testing.assert_allclose(got.numpy(), log_odds_by_hand(chain, logits), rtol=ROUNDING, atol=ROUNDING)


EXTREME = st.sampled_from([-1e4, -200.0, -90.0, 0.0, 17.0, 90.0, 200.0, 1e4])


@given(st.lists(EXTREME, min_size=3, max_size=3), st.lists(st.integers(0, 1), min_size=3, max_size=3))
def test_extreme_log_odds_give_a_finite_loss_and_gradient(logits, labels):
    logit_1L = torch.tensor([logits], requires_grad=True)
    out = chained(logit_1L, (-1, 0, 1))
    loss = torch.nn.functional.binary_cross_entropy_with_logits(out, torch.tensor([labels]).float())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logit_1L.grad).all()


@pytest.mark.parametrize(("first", "then"), [(90.0, 95.0), (200.0, 0.5), (-300.0, 2.0)])
def test_the_gradient_of_a_product_does_not_vanish_where_its_probability_rounds(first, then):
    both = torch.tensor([first, then], dtype=torch.float32, requires_grad=True)
    log_odds_of_both(both[:1], both[1:]).sum().backward()
    # d logit(pq) / d logit(p) = (1 - p) / (1 - p q), and the same of q.
    lost = [1 / (1 + Decimal(x).exp()) for x in (first, then)]
    either = lost[0] + lost[1] - lost[0] * lost[1]
    np.testing.assert_allclose(
        both.grad.numpy(), [float(one / either) for one in lost], rtol=1e-4, atol=1e-30
    )


def test_a_first_order_sum_cannot_make_a_step_likelier_than_the_one_before_it():
    config = MultiDomainConfig(
        n_features=2,
        vector_dim=3,
        domains=RandomDomains(n_domains=1),
        domain_feature=0,
        net=SingleNetConfig(hidden=(4,)),
        n_tasks=3,
        heads=ESMMHeads(inner=MMoEHeads(width=WIDTH, hidden=(3,), tower=(2,)), chain=(1, -1, 0)),
    )
    pooled_BW = 3 * torch.randn(200, 2 * (3 + 3), generator=torch.Generator().manual_seed(0))
    logit_BL = config.build()(pooled_BW, torch.zeros(200, dtype=torch.int64))
    assert (logit_BL[:, 1] > logit_BL[:, 0]).all()
    assert (logit_BL[:, 0] > logit_BL[:, 2]).all()
    wide_BL = pooled_BW.view(200, 2, 6)[..., :3].sum(dim=1)
    without = config.build()(
        pooled_BW.clone().view(200, 2, 6).index_fill(2, torch.arange(3), 0).flatten(1),
        torch.zeros(200, dtype=torch.int64),
    )
    torch.testing.assert_close(logit_BL[:, 1], without[:, 1] + wide_BL[:, 1])


def funnel(seed, n=20_000):
    """(inputs after a ReLU, entire-space labels, true click and conversion-after-click probabilities)."""
    random = np.random.default_rng(seed)
    x_N2 = random.normal(size=(n, 2))
    click_N = 1 / (1 + np.exp(1.0 - 1.5 * x_N2[:, 0]))
    after_N = 1 / (1 + np.exp(0.5 - x_N2[:, 1] + x_N2[:, 0]))
    clicks_N = random.random(n) < click_N
    converts_N = clicks_N & (random.random(n) < after_N)
    x_NO = torch.tensor(np.maximum(np.concatenate([x_N2, -x_N2], axis=1), 0), dtype=torch.float32)
    labels_NL = torch.tensor(np.stack([clicks_N, converts_N], axis=1), dtype=torch.float32)
    return x_NO, labels_NL, click_N, after_N


def test_a_funnel_is_calibrated_over_all_rows_those_without_a_click_too():
    config = ESMMHeads(inner=MMoEHeads(width=WIDTH, hidden=(16,), tower=(8,)), chain=(-1, 0))
    heads = config.build(2, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.02)
    x_NO, labels_NL, *_ = funnel(0)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(heads(x_NO), labels_NL).backward()
        optimizer.step()
    x_NO, labels_NL, click_N, after_N = funnel(1)
    p_NL = torch.sigmoid(heads(x_NO)).numpy(force=True)
    for task, true_N in enumerate((click_N, click_N * after_N)):
        for rows_of_tenth in np.array_split(np.argsort(true_N), 10):
            assert math.isclose(p_NL[rows_of_tenth, task].mean(), true_N[rows_of_tenth].mean(), abs_tol=0.03)
    unclicked_N = labels_NL[:, 0].numpy() == 0
    conditional_N = p_NL[:, 1] / p_NL[:, 0]
    assert np.abs(conditional_N - after_N)[unclicked_N].mean() < 0.06


@pytest.mark.parametrize(
    "config", [MMOE, PLE, ESMMHeads(inner=PLE, chain=(-1, 0))], ids=lambda c: type(c).__name__
)
def test_initial_weights_come_from_the_given_generator_alone(config):
    states = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(global_seed)
        states.append(config.build(2, torch.Generator().manual_seed(seed)).state_dict())
    one, two, other = states
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MMoEHeads(experts=0), "width and experts must be >= 1, got 64 and 0"),
        (lambda: MMoEHeads(tower=()), "hidden must hold"),
        (lambda: PLEHeads(levels=()), "levels must hold at least one level"),
        (lambda: PLEHeads(levels=((),)), "hidden must hold"),
        (lambda: PLEHeads(task_experts=0), "must be >= 1"),
        (lambda: ESMMHeads(inner=MMOE, chain=()), "chain must hold"),
        (lambda: ESMMHeads(inner=MMOE, chain=(-1, 2)), "chain must hold"),
        (lambda: ESMMHeads(inner=MMOE, chain=(-2,)), "chain must hold"),
        (lambda: ESMMHeads(inner=MMOE, chain=(0,)), "must not lead back"),
        (lambda: ESMMHeads(inner=MMOE, chain=(-1, 2, 1)), "must not lead back"),
        (lambda: ESMMHeads(inner=MMOE, chain=(-1, 0)).build(3, torch.Generator()), "of 2 tasks, but 3"),
    ],
)
def test_heads_that_cannot_be_built_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
