"""What a model costs, and its widths at which a row costs no more than one of the single net.

Widths are scaled until the matrix products of a row, counted by torch, fit that budget. A model whose
fixed parts alone go beyond it gets the least whole number of budgets instead, and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from infra.multidomain.arms import ARMS, Arm, Hidden, scaled
from recsys.errors import ConfigError
from recsys.multidomain.domain_index import RandomDomains
from recsys.multidomain.tower import MultiDomainConfig

COUNTED_ROWS = 256
LEAST_SCALE = 0.25
"""Narrower, and a model would be judged by what is left of it."""
MOST_BUDGETS = 64
HALVINGS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a row and a model cost."""

    flops_per_row: float
    """Of matrix products, forward; a multiply-add is two."""
    relative_flops: float
    """The same over those of the single net."""
    budgets: int
    """The same, rounded up: 1 where a row costs no more than one of the single net."""
    n_parameters: int
    """Of the dense part."""
    scale: float = 1.0
    """Of the widths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A model as it is compared on one data set."""

    arm: str
    config: MultiDomainConfig
    cost: Cost


def contender(name: str, like: MultiDomainConfig, hidden: Hidden, *, at_equal_cost: bool) -> Contender:
    """A model at the single net's widths, or scaled to its cost. Raises ConfigError for an unknown name."""
    if name not in ARMS:
        raise ConfigError(f"model {name!r} does not exist; use some of {', '.join(ARMS)}")
    arm = ARMS[name]
    budget = flops_per_row(tower_of(ARMS["single"], like, hidden))
    scale = _fitting_scale(arm, like, hidden, budget) if at_equal_cost else 1.0
    config = tower_of(arm, like, hidden, scale)
    return Contender(arm=name, config=config, cost=cost_of(config, budget, scale))


def tower_of(arm: Arm, like: MultiDomainConfig, hidden: Hidden, scale: float = 1.0) -> MultiDomainConfig:
    """An arm's settings, all but the net and its domains as of ``like``."""
    domains = RandomDomains(n_domains=arm.random_domains) if arm.random_domains else like.domains
    net = arm.make(tuple(scaled(width, scale) for width in hidden), scale)
    return replace(like, net=net, domains=domains)


def cost_of(config: MultiDomainConfig, budget: float, scale: float = 1.0) -> Cost:
    """The cost of a model where a row of the single net takes ``budget`` operations."""
    flops = flops_per_row(config)
    return Cost(
        flops_per_row=flops,
        relative_flops=flops / budget,
        budgets=math.ceil(flops / budget),
        n_parameters=sum(parameter.numel() for parameter in config.build().parameters()),
        scale=scale,
    )


def flops_per_row(config: MultiDomainConfig) -> float:
    """Operations of a forward pass, over rows that are spread evenly over the domains."""
    tower = config.build().eval()
    width = config.n_features * (config.n_tasks + config.vector_dim)
    generator = torch.Generator().manual_seed(0)
    pooled_BW = torch.randn(COUNTED_ROWS, width, generator=generator)
    domain_B = torch.arange(COUNTED_ROWS) % config.domains.n_domains
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(pooled_BW, domain_B)
    return float(counter.get_total_flops()) / COUNTED_ROWS


def _fitting_scale(arm: Arm, like: MultiDomainConfig, hidden: Hidden, budget: float) -> float:
    """The widest scale, to within HALVINGS bisections, within the fewest budgets that allow LEAST_SCALE."""

    def flops(scale: float) -> float:
        return flops_per_row(tower_of(arm, like, hidden, scale))

    budgets = math.ceil(flops(LEAST_SCALE) / budget)
    if budgets > MOST_BUDGETS:
        raise ConfigError(
            f"a quarter of the model takes {budgets} times the operations of the single net, want at most "
            f"{MOST_BUDGETS}; widen the single net"
        )
    if flops(1.0) <= budgets * budget:
        return 1.0
    low, high = LEAST_SCALE, 1.0
    for _ in range(HALVINGS):
        tried = (low + high) / 2
        low, high = (tried, high) if flops(tried) <= budgets * budget else (low, tried)
    return low
