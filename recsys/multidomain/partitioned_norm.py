"""Partitioned normalisation: each set's rows by that set's own statistics.

``z = g * g_s * (x - mean_s) / sqrt(variance_s + epsilon) + b + b_s``. In training mean and variance are
those of the set's rows in the batch, with the gradient through them; in evaluation they are moving
ones. A part of under ``min_rows`` rows says too little, in training it goes by the moving ones too.
Those of a set that has hardly been seen are, in their turn, the moving ones of all rows.

Sheng et al., "One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
Prediction", CIKM 2021, arXiv:2101.11427, with a set for a domain; it leaves out what happens to small
parts and to sets never seen, which is ours.

Axes: B rows, S sets, P entries: the sets present in a batch, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionedNormConfig:
    """How statistics move and when they count."""

    momentum: float = 0.99
    """Share that earlier rows keep when a batch comes with others of their set; 0 to under 1."""
    min_rows: int = 16
    """Fewest rows by which to normalise, in a batch or among those that moving statistics remember; >= 2."""
    epsilon: float = 1e-5
    """Added to each variance; > 0."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum < 1.0 or self.min_rows < 2 or not self.epsilon > 0.0:
            raise ConfigError(f"want 0 <= momentum < 1, min_rows >= 2 and epsilon > 0, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Means and variances (P, D) of the rows, ``rows_P`` many, behind each of P entries."""

    rows_P: Tensor
    mean_PD: Tensor
    variance_PD: Tensor

    @staticmethod
    def of(x_BD: Tensor, entry_B: Tensor, count_P: Tensor) -> Moments:
        """Moments of the rows by entry, of which each has at least one; with gradients."""
        rows_P = count_P.to(x_BD.dtype)
        zeros_PD = x_BD.new_zeros(len(count_P), x_BD.shape[1])
        mean_PD = zeros_PD.index_add(0, entry_B, x_BD) / rows_P.unsqueeze(1)
        squares_BD = (x_BD - mean_PD.index_select(0, entry_B)).square()
        variance_PD = zeros_PD.index_add(0, entry_B, squares_BD) / rows_P.unsqueeze(1)
        return Moments(rows_P=rows_P, mean_PD=mean_PD, variance_PD=variance_PD)

    def with_later(self, other: Moments, momentum: float) -> Moments:
        """Moments of the rows here, each counted ``momentum`` times, and those of ``other`` together.

        Chan et al., "Algorithms for Computing the Sample Variance", 1983.
        """
        rows_P = momentum * self.rows_P + other.rows_P
        share_P1 = (other.rows_P / rows_P).unsqueeze(1)
        step_PD = other.mean_PD - self.mean_PD
        within_PD = torch.lerp(self.variance_PD, other.variance_PD, share_P1)
        return Moments(
            rows_P=rows_P,
            mean_PD=self.mean_PD + share_P1 * step_PD,
            variance_PD=within_PD + share_P1 * (1.0 - share_P1) * step_PD.square(),
        )


class PartitionedNorm(nn.Module):
    """Normalises rows by set. Any number of callers of forward in evaluation, one in training.

    ``adapt``, ``fold`` and ``train`` go with nobody else inside. A set never trained on does no harm.
    """

    rows: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, n_sets: int, n_columns: int, config: PartitionedNormConfig) -> None:
        super().__init__()
        self.n_sets, self._config = n_sets, config
        self.shared_scale = nn.Parameter(torch.ones(n_columns))
        self.shared_shift = nn.Parameter(torch.zeros(n_columns))
        self.own_scale = nn.Parameter(torch.ones(n_sets, n_columns))
        self.own_shift = nn.Parameter(torch.zeros(n_sets, n_columns))
        # The last entry of each is of all rows, whatever their set.
        self.register_buffer("rows", torch.zeros(n_sets + 1))
        self.register_buffer("mean", torch.zeros(n_sets + 1, n_columns))
        self.register_buffer("variance", torch.ones(n_sets + 1, n_columns))
        self._noted: tuple[Tensor, Moments] | None = None
        self._folded: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x_BD: Tensor, index_B: Tensor) -> Tensor:
        """Normalised rows, (B, D); ``index_B`` holds int64 in 0 to S - 1."""
        if self._folded is not None:
            return _normal(x_BD, index_B, *self._folded)
        sets_P, entry_B, count_P = torch.unique(index_B, return_inverse=True, return_counts=True)
        mean_PD, variance_PD = self._moving(sets_P)
        if self.training:
            batch = Moments.of(x_BD, entry_B, count_P)
            if torch.is_grad_enabled():
                self._note(sets_P, batch, x_BD)
            enough_P1 = (count_P >= self._config.min_rows).unsqueeze(1)
            mean_PD = torch.where(enough_P1, batch.mean_PD, mean_PD)
            variance_PD = torch.where(enough_P1, batch.variance_PD, variance_PD)
        return _normal(x_BD, entry_B, mean_PD, *self._affine(sets_P, variance_PD))

    def adapt(self) -> None:
        """Fold the last training pass's moments into the moving ones, if they have not been yet."""
        if self._noted is None:
            return
        sets_P, batch = self._noted
        self._noted = None
        old = Moments(rows_P=self.rows[sets_P], mean_PD=self.mean[sets_P], variance_PD=self.variance[sets_P])
        new = old.with_later(batch, self._config.momentum)
        self.rows[sets_P], self.mean[sets_P], self.variance[sets_P] = (
            new.rows_P,
            new.mean_PD,
            new.variance_PD,
        )

    def fold(self) -> None:
        """Work out every set's scale once, of weights that will change no more; ``train`` forgets them.

        Raises ConfigError in training.
        """
        if self.training:
            raise ConfigError("a norm in training cannot be folded; call eval() first")
        with torch.no_grad():
            every_P = torch.arange(self.n_sets, device=self.rows.device)
            mean_PD, variance_PD = self._moving(every_P)
            self._folded = (mean_PD, *self._affine(every_P, variance_PD))

    def train(self, mode: bool = True) -> Self:
        """As of any module; training forgets what was folded."""
        if mode:
            self._folded = None
        return super().train(mode)

    def _moving(self, sets_P: Tensor) -> tuple[Tensor, Tensor]:
        """Moving mean and variance of ``sets_P``, (P, D): each set's own, else of all rows, else 0 and 1."""
        enough = self.rows >= self._config.min_rows
        mean_D = torch.where(enough[-1], self.mean[-1], 0.0)
        variance_D = torch.where(enough[-1], self.variance[-1], 1.0)
        enough_P1 = enough[sets_P].unsqueeze(1)
        return (
            torch.where(enough_P1, self.mean[sets_P], mean_D),
            torch.where(enough_P1, self.variance[sets_P], variance_D),
        )

    def _affine(self, sets_P: Tensor, variance_PD: Tensor) -> tuple[Tensor, Tensor]:
        """What the centred columns of ``sets_P`` are multiplied by, and what is added then, (P, D) each."""
        scale_PD = self.shared_scale * self.own_scale.index_select(0, sets_P)
        shift_PD = self.shared_shift + self.own_shift.index_select(0, sets_P)
        return scale_PD * torch.rsqrt(variance_PD + self._config.epsilon), shift_PD

    def _note(self, sets_P: Tensor, batch: Moments, x_BD: Tensor) -> None:
        """Keep the moments of a batch's parts, and of all its rows, for ``adapt``."""
        with torch.no_grad():
            variance_D, mean_D = torch.var_mean(x_BD, dim=0, correction=0)
            self._noted = (
                torch.cat([sets_P, sets_P.new_tensor([self.n_sets])]),
                Moments(
                    rows_P=torch.cat([batch.rows_P, batch.rows_P.new_tensor([len(x_BD)])]),
                    mean_PD=torch.cat([batch.mean_PD, mean_D.unsqueeze(0)]),
                    variance_PD=torch.cat([batch.variance_PD, variance_D.unsqueeze(0)]),
                ),
            )


def _normal(x_BD: Tensor, entry_B: Tensor, mean_PD: Tensor, scale_PD: Tensor, shift_PD: Tensor) -> Tensor:
    """Rows, (B, D), centred, multiplied and shifted by what stands at their entry."""
    # index_select: an index in brackets takes several times as long on the way back.
    mean_BD, scale_BD, shift_BD = (
        every_PD.index_select(0, entry_B) for every_PD in (mean_PD, scale_PD, shift_PD)
    )
    return torch.addcmul(shift_BD, x_BD - mean_BD, scale_BD)
