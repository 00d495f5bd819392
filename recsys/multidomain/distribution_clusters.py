"""Clusters of rows by where their vectors point: no domain label is needed, and no gradient flows.

Rows are routed by the centres as they were before their batch, in training and in serving alike;
``adapt`` then moves the centres. Rows are gathered until there are enough for a move, so that small
online batches move them as large ones do. All of it is in buffers: what is saved routes as it did.

Axes: B rows, D columns of a routed row, K clusters, R rows of a move.
Reference: Li et al., "AdaptDHM", arXiv:2211.12105; the cure of its collapse is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.multidomain import cluster_updates as updates
from recsys.table.ranks import Ranks

Update = Literal["cosine", "paper", "swr", "adl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """How many clusters there are, and how their centres move."""

    clusters: int = 3
    """K; >= 1."""
    update: Update = "cosine"
    """How centres follow the rows; the others are for comparison, and may collapse."""
    temperature: float = 0.1
    """τ of the softmax over cosines; > 0. Of no effect on the others."""
    memory: float = 0.9
    """β, how much of a centre stays at a move; in [0, 1]."""
    rounds: int = 1
    """T, inner rounds of a move; >= 1."""
    mean_memory: float = 0.99
    """The same as ``memory`` for the mean that is taken off the rows; in [0, 1]."""
    rows_per_move: int = 512
    """R, how many rows there are in a move at the least; >= K."""
    warm_up_moves: int = 20
    """Moves before the centres start, by k-means: until then they are random, and stay; >= 0."""
    reseed_after: int = 50
    """A centre with less than half its fair share for so many moves starts anew; >= 1."""

    def __post_init__(self) -> None:
        if self.update not in get_args(Update):
            raise ConfigError(f"update must be one of {get_args(Update)}, got {self.update!r}")
        if min(self.clusters, self.rounds, self.reseed_after) < 1 or self.warm_up_moves < 0:
            raise ConfigError(
                f"want clusters, rounds and reseed_after >= 1 and warm_up_moves >= 0; got {self}"
            )
        if not self.temperature > 0.0 or not (0.0 <= self.memory <= 1.0 and 0.0 <= self.mean_memory <= 1.0):
            raise ConfigError(f"want temperature > 0 and memories in [0, 1]; got {self}")
        if self.rows_per_move < self.clusters:
            raise ConfigError(f"rows_per_move must be >= {self.clusters} clusters, got {self.rows_per_move}")


class DistributionClusters(nn.Module):
    """Centres and what is known of their use. Many callers of ``route``, one of all else."""

    centres_KD: Tensor
    mean_D: Tensor
    usage_K: Tensor
    changed: Tensor
    learning_moves: Tensor
    learning_low_K: Tensor
    learning_rows_RD: Tensor
    learning_n_rows: Tensor

    def __init__(
        self, config: ClusterConfig, n_columns: int, generator: torch.Generator, ranks: Ranks | None = None
    ) -> None:
        """``ranks`` of data-parallel training hold one set of centres: each moves it by the rows of all."""
        super().__init__()
        self._config, self._ranks = config, ranks
        k, r = config.clusters, config.rows_per_move
        start_KD = updates.unit(torch.empty(k, n_columns).normal_(generator=generator))
        for name, value in {
            "centres_KD": start_KD,
            "mean_D": torch.zeros(n_columns),
            "usage_K": torch.full((k,), 1.0 / k),
            "changed": torch.zeros(1),
            "learning_moves": torch.zeros(1),
            "learning_low_K": torch.zeros(k),
            "learning_rows_RD": torch.zeros(r, n_columns),
            "learning_n_rows": torch.zeros(1),
        }.items():
            self.register_buffer(name, value)
        self._noted_BD: Tensor | None = None
        self._offset_K: Tensor | None = None

    def similarity_BK(self, e_BD: Tensor) -> Tensor:
        """How like each centre each row is, over the temperature."""
        config = self._config
        if config.update != "cosine":
            return updates.similarity_BK(e_BD, self.centres_KD)
        return updates.similarity_BK(self._centred(e_BD), self.centres_KD, config.temperature)

    def route(self, e_BD: Tensor) -> Tensor:
        """Cluster of each row, int64 (B,): the one that it is most like."""
        if self._config.update != "cosine":
            return self.similarity_BK(e_BD).argmax(dim=1)
        # A row's length makes it no likelier to be in one than in another, and (e - m) c is e c - m c.
        offset_K = self._offset_K if self._offset_K is not None else self._offset()
        return nn.functional.linear(e_BD, self.centres_KD, offset_K).argmax(dim=1)

    def fold(self) -> None:
        """Work out ahead what ``route`` needs of centres that will move no more; ``train`` forgets it.

        Raises ConfigError in training.
        """
        if self.training:
            raise ConfigError("clusters in training cannot be folded; call eval() first")
        self._offset_K = self._offset()

    def train(self, mode: bool = True) -> Self:
        """As of any module; training forgets what was folded."""
        if mode:
            self._offset_K = None
        return super().train(mode)

    def note(self, e_BD: Tensor) -> None:
        """Keep rows of a training pass for ``adapt``; they replace those that wait."""
        self._noted_BD = e_BD.detach()

    @torch.no_grad()
    def adapt(self) -> None:
        """Take in the rows that were noted, and move the centres if there are enough of them now."""
        noted_BD, self._noted_BD = self._noted_BD, None
        if noted_BD is None:
            return
        n_kept = int(self.learning_n_rows)
        rows_BD = torch.cat([self.learning_rows_RD[:n_kept], noted_BD]) if n_kept else noted_BD
        if self._sum(torch.tensor([float(len(rows_BD))])) < self._config.rows_per_move:
            self.learning_rows_RD[n_kept : len(rows_BD)] = noted_BD
            self.learning_n_rows.fill_(len(rows_BD))
            return
        self.learning_n_rows.zero_()
        self._move(rows_BD)

    def report(self) -> dict[str, float]:
        """Share of each cluster (``usage_k``), the smallest (``min_share``), the share of rows whose cluster
        changed at the last move (``changed``), the largest cosine between two centres (``max_cosine``)."""
        between_KK = updates.unit(self.centres_KD) @ updates.unit(self.centres_KD).T
        between_KK.fill_diagonal_(-1.0)
        usage = {f"usage_{k}": float(share) for k, share in enumerate(self.usage_K)}
        return usage | {
            "min_share": float(self.usage_K.min()),
            "changed": float(self.changed),
            "max_cosine": float(between_KK.max()),
            "moves": float(self.learning_moves),
        }

    def _offset(self) -> Tensor:
        """What the mean takes off each centre's dot product with a row, (K,)."""
        return -(self.centres_KD @ self.mean_D)

    def _move(self, rows_BD: Tensor) -> None:
        config = self._config
        before_B = self.route(rows_BD)
        if config.update == "cosine":
            self._move_mean(rows_BD)
        self.centres_KD.copy_(self._next_centres(rows_BD))
        self.learning_moves += 1
        own_BK = nn.functional.one_hot(before_B, config.clusters).to(rows_BD.dtype)
        changed_B = (self.route(rows_BD) != before_B).to(rows_BD.dtype)
        counted = self._sum(torch.cat([own_BK.sum(dim=0), changed_B.sum()[None]])) / self._sum(
            torch.tensor([float(len(rows_BD))])
        )
        self.usage_K.copy_(counted[:-1])
        self.changed.copy_(counted[-1:])
        self._start_anew_where_idle(rows_BD)

    def _next_centres(self, rows_BD: Tensor) -> Tensor:
        config, now_KD, sums = self._config, self.centres_KD, self._sums
        if config.update == "paper":
            return updates.paper(rows_BD, now_KD, rounds=config.rounds, memory=config.memory, sums=sums)
        if config.update == "swr":
            return updates.swr(rows_BD, now_KD, rounds=config.rounds, memory=config.memory, sums=sums)
        if config.update == "adl":
            return updates.adl(rows_BD, now_KD, memory=config.memory, sums=sums)
        moves = int(self.learning_moves)
        if moves < config.warm_up_moves:
            return now_KD
        x_BD = self._centred(rows_BD)
        if moves == config.warm_up_moves:
            all_BD = self._all_rows(x_BD)
            return updates.k_means(all_BD, updates.farthest_first(all_BD, config.clusters), rounds=10)
        return updates.cosine(
            x_BD,
            now_KD,
            rounds=config.rounds,
            memory=config.memory,
            temperature=config.temperature,
            sums=sums,
        )

    def _move_mean(self, rows_BD: Tensor) -> None:
        n = float(self._sum(torch.tensor([float(len(rows_BD))])))
        mean_D = self._sum(rows_BD.sum(dim=0)) / n
        memory = self._config.mean_memory if int(self.learning_moves) else 0.0
        self.mean_D.lerp_(mean_D, 1.0 - memory)

    def _start_anew_where_idle(self, rows_BD: Tensor) -> None:
        """Centres that hardly any row has followed for long go to the rows that are least like theirs."""
        config = self._config
        is_low_K = self.usage_K < 0.5 / config.clusters
        self.learning_low_K.copy_(torch.where(is_low_K, self.learning_low_K + 1, 0.0))
        idle = torch.nonzero(self.learning_low_K >= config.reseed_after).flatten().tolist()
        if config.update != "cosine" or not idle:
            return
        x_BD = self._all_rows(self._centred(rows_BD))
        kept = [k for k in range(config.clusters) if k not in idle]
        nearest_B = (x_BD @ self.centres_KD[kept].T).amax(dim=1)
        for k in idle:
            self.centres_KD[k] = x_BD[int(nearest_B.argmin())]
            nearest_B = torch.maximum(nearest_B, x_BD @ self.centres_KD[k])
        self.learning_low_K[idle] = 0.0

    def _centred(self, rows_BD: Tensor) -> Tensor:
        """Rows without the mean, at length 1; a row of zeros stays one."""
        x_BD = rows_BD - self.mean_D
        # In place: at such a size the memory of a further copy costs more than the division.
        return x_BD.div_(torch.linalg.vector_norm(x_BD, dim=1, keepdim=True).clamp_min_(1e-12))

    def _sums(self, x_BD: Tensor, r_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sums over the rows of all ranks."""
        sum_KD, mass_K = updates.weighted_sums(x_BD, r_BK)
        return self._sum(sum_KD), self._sum(mass_K)

    def _sum(self, part: Tensor) -> Tensor:
        """The sum over all ranks, in order of rank: the same bits on each."""
        if self._ranks is None:
            return part
        (parts,) = self._ranks.joined([part[None].numpy()])
        return torch.from_numpy(parts).sum(dim=0)

    def _all_rows(self, x_BD: Tensor) -> Tensor:
        """The rows of all ranks, in order of rank."""
        return x_BD if self._ranks is None else torch.from_numpy(self._ranks.joined([x_BD.numpy()])[0])
