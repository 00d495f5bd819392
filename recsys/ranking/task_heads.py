"""Heads of several tasks behind one net: what turns its output into the log-odds of each label.

``MMoEHeads`` and ``PLEHeads`` let tasks share what helps them; ``ESMMHeads`` ties the log-odds of such
heads into chains, where one action can only follow another. Without heads a net's last layer is a column
for each task. Experts, gates and towers start as the nets themselves do.

Axes: B examples, O columns of the net's output, L tasks, E experts, I columns into a level, H out of it.
References: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts", KDD 2018, doi 10.1145/3219819.3220007; Tang et al., "Progressive Layered Extraction
(PLE)", RecSys 2020, doi 10.1145/3383313.3412236; Ma et al., "Entire Space Multi-Task Model", SIGIR 2018,
arXiv:1804.07931.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.ranking.blocks import mixture, plain_mlp
from recsys.ranking.tower import check_hidden


class TaskHeads(nn.Module):
    """Log-odds of several tasks. Like any nn.Module."""

    def forward(self, hidden_BO: Tensor, first_order_BL: Tensor | None = None) -> Tensor:
        """Log-odds, (B, L), of a net's output after a ReLU.

        ``first_order_BL`` is added to each task's own log-odds, before tasks are tied together.
        """
        raise NotImplementedError


class TaskHeadsConfig(Protocol):
    """Settings of what makes the log-odds of several tasks out of a net's output."""

    @property
    def width(self) -> int:
        """O, columns that the heads take."""

    def build(self, n_tasks: int, generator: torch.Generator) -> TaskHeads:
        """Heads at their initial weights: the same bits from a generator in the same state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MMoEHeads:
    """Experts that all tasks share; a gate over them and a tower for each task."""

    width: int = 64
    """O, columns that the heads take; >= 1."""
    experts: int = 3
    """E; >= 1."""
    hidden: tuple[int, ...] = (32,)
    """Widths of each expert's layers; at least one."""
    tower: tuple[int, ...] = (16,)
    """Hidden layers of each task's tower; at least one."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        check_hidden(self.tower)
        if min(self.width, self.experts) < 1:
            raise ConfigError(f"width and experts must be >= 1, got {self.width} and {self.experts}")

    def build(self, n_tasks: int, generator: torch.Generator) -> TaskHeads:
        """Heads at their initial weights."""
        return _MMoE(self, n_tasks, generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class PLEHeads:
    """Levels of experts of each task and experts of all, mixed by gates; then a tower for each task."""

    width: int = 64
    """O, columns that the heads take; >= 1."""
    levels: tuple[tuple[int, ...], ...] = ((32,),)
    """Widths of an expert's layers at each level; one level is the paper's CGC; at least one."""
    shared_experts: int = 1
    """Experts of all tasks at each level; >= 1."""
    task_experts: int = 1
    """Experts of each task at each level; >= 1."""
    tower: tuple[int, ...] = (16,)
    """Hidden layers of each task's tower; at least one."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("levels must hold at least one level, got ()")
        for hidden in (*self.levels, self.tower):
            check_hidden(hidden)
        sizes = (self.width, self.shared_experts, self.task_experts)
        if min(sizes) < 1:
            raise ConfigError(f"width, shared_experts and task_experts must be >= 1, got {sizes}")

    def build(self, n_tasks: int, generator: torch.Generator) -> TaskHeads:
        """Heads at their initial weights."""
        return _PLE(self, n_tasks, generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class ESMMHeads:
    """Tasks of which one can only follow another, each learned over all rows.

    The inner heads give each task's log-odds once the one before it has happened; what comes out is that
    it happens at all, p = p_1 ⋯ p_l along its chain. Its label is so too: 0 where the one before is 0.
    """

    inner: TaskHeadsConfig
    """What makes the conditional log-odds."""
    chain: tuple[int, ...]
    """For each task the index of the one it follows, or -1 for none; (L,)."""

    def __post_init__(self) -> None:
        if not self.chain or any(not -1 <= before < len(self.chain) for before in self.chain):
            raise ConfigError(f"chain must hold -1 or a task's index for each task, got {self.chain}")
        if len(chain_order(self.chain)) < len(self.chain):
            raise ConfigError(f"chain must not lead back to where it began, got {self.chain}")

    @property
    def width(self) -> int:
        """O, columns that the inner heads take."""
        return self.inner.width

    def build(self, n_tasks: int, generator: torch.Generator) -> TaskHeads:
        """Heads at their initial weights. Raises ConfigError unless the chain is of so many tasks."""
        if n_tasks != len(self.chain):
            raise ConfigError(f"the chain is of {len(self.chain)} tasks, but {n_tasks} are learned")
        return _ESMM(self, n_tasks, generator)


def log_odds_of_both(first_B: Tensor, then_B: Tensor) -> Tensor:
    """Log-odds of p q, (B,), from those of p and of q: finite, with its gradient, wherever they are.

    With a = (1 - p) / p and b = (1 - q) / q, 1 / (p q) - 1 = (1 + a) (1 + b) - 1 = a + b + a b.
    """
    return -torch.stack([-first_B, -then_B, -first_B - then_B]).logsumexp(dim=0)


def chain_order(chain: Sequence[int]) -> list[int]:
    """Tasks in an order in which each comes after the one it follows; tasks of a circle are left out."""
    order: list[int] = []
    while True:
        ready = [
            task
            for task, before in enumerate(chain)
            if task not in order and (before == -1 or before in order)
        ]
        if not ready:
            return order
        order += ready


class _Experts(nn.ModuleList):
    """MLPs side by side: (B, I) to (B, E, H). Like any nn.Module."""

    def __init__(self, n_experts: int, widths: Sequence[int], generator: torch.Generator) -> None:
        super().__init__(plain_mlp(widths, generator) for _ in range(n_experts))

    def forward(self, x_BI: Tensor) -> Tensor:
        return torch.stack([expert(x_BI) for expert in self], dim=1)


class _MMoE(TaskHeads):
    def __init__(self, config: MMoEHeads, n_tasks: int, generator: torch.Generator) -> None:
        super().__init__()
        self.experts = _Experts(config.experts, (config.width, *config.hidden), generator)
        self.gates = _gates(n_tasks, config.width, config.experts, generator)
        self.towers = _towers(n_tasks, (config.hidden[-1], *config.tower), generator)

    def forward(self, hidden_BO: Tensor, first_order_BL: Tensor | None = None) -> Tensor:
        output_BEH = self.experts(hidden_BO)
        mixed_L = [mixture(output_BEH, gate(hidden_BO)) for gate in self.gates]
        return _log_odds(self.towers, mixed_L, first_order_BL)


class _Level(nn.Module):
    """Experts and gates of one PLE level; the last has no shared gate. Like any nn.Module."""

    def __init__(
        self,
        widths: tuple[int, ...],
        config: PLEHeads,
        n_tasks: int,
        generator: torch.Generator,
        *,
        is_last: bool,
    ) -> None:
        super().__init__()
        n_own, n_shared = config.task_experts, config.shared_experts
        self.own = nn.ModuleList(_Experts(n_own, widths, generator) for _ in range(n_tasks))
        self.shared = _Experts(n_shared, widths, generator)
        self.gates = _gates(n_tasks, widths[0], n_own + n_shared, generator)
        # As a list, so that none is nothing to go through.
        self.shared_gate = _gates(0 if is_last else 1, widths[0], n_tasks * n_own + n_shared, generator)

    def forward(self, own_L: list[Tensor], shared_BI: Tensor) -> tuple[list[Tensor], Tensor]:
        """Inputs of the next level: of each task, L of (B, H), and the shared one."""
        output_L = [experts(own_BI) for experts, own_BI in zip(self.own, own_L, strict=True)]
        shared_BEH = self.shared(shared_BI)
        next_L = [
            mixture(torch.cat([output_BEH, shared_BEH], dim=1), gate(own_BI))
            for output_BEH, gate, own_BI in zip(output_L, self.gates, own_L, strict=True)
        ]
        for gate in self.shared_gate:
            shared_BI = mixture(torch.cat([*output_L, shared_BEH], dim=1), gate(shared_BI))
        return next_L, shared_BI


class _PLE(TaskHeads):
    def __init__(self, config: PLEHeads, n_tasks: int, generator: torch.Generator) -> None:
        super().__init__()
        n_levels = len(config.levels)
        ends = [config.width, *(hidden[-1] for hidden in config.levels)]
        self.levels = nn.ModuleList(
            _Level((ends[at], *hidden), config, n_tasks, generator, is_last=at == n_levels - 1)
            for at, hidden in enumerate(config.levels)
        )
        self.towers = _towers(n_tasks, (ends[-1], *config.tower), generator)

    def forward(self, hidden_BO: Tensor, first_order_BL: Tensor | None = None) -> Tensor:
        own_L, shared_BI = [hidden_BO] * len(self.towers), hidden_BO
        for level in self.levels:
            own_L, shared_BI = level(own_L, shared_BI)
        return _log_odds(self.towers, own_L, first_order_BL)


class _ESMM(TaskHeads):
    def __init__(self, config: ESMMHeads, n_tasks: int, generator: torch.Generator) -> None:
        super().__init__()
        self._chain, self._order = config.chain, chain_order(config.chain)
        self.inner = config.inner.build(n_tasks, generator)

    def forward(self, hidden_BO: Tensor, first_order_BL: Tensor | None = None) -> Tensor:
        logit_L = list(self.inner(hidden_BO, first_order_BL).unbind(1))
        for task in self._order:
            if self._chain[task] != -1:
                logit_L[task] = log_odds_of_both(logit_L[self._chain[task]], logit_L[task])
        return torch.stack(logit_L, dim=1)


def _gates(n: int, n_in: int, n_experts: int, generator: torch.Generator) -> nn.ModuleList:
    return nn.ModuleList(plain_mlp((n_in, n_experts), generator, ends_linear=True) for _ in range(n))


def _towers(n_tasks: int, widths: Sequence[int], generator: torch.Generator) -> nn.ModuleList:
    return nn.ModuleList(plain_mlp((*widths, 1), generator, ends_linear=True) for _ in range(n_tasks))


def _log_odds(towers: nn.ModuleList, input_L: list[Tensor], first_order_BL: Tensor | None) -> Tensor:
    """Each task's tower on its own input, (B, L), and the first order added."""
    logit_BL = torch.cat([tower(x_BH) for tower, x_BH in zip(towers, input_L, strict=True)], dim=1)
    return logit_BL if first_order_BL is None else logit_BL + first_order_BL
