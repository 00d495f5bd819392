"""DIN: a history is summed with weights that depend on the target, so that what resembles it counts.

A wrapper around any ranker. Its tower takes the row of each occurrence, pools every feature by sum or
mean as ever, and then puts the weighted sum in the place of each history's vector columns. A history's
wide columns stay pooled, and a target of several keys is compared as pooled.

The paper's activation unit takes h, t and their outer product; as its authors' code does, this one
takes h, t, h - t and h ⊙ t. ReLU stands for their PReLU and Dice. The weights are used as they are, not
as a softmax: a history with more of what the target is like gives a longer vector (sec. 4.3).

Axes: B examples, F features, L tasks, K vector columns, D = L + K columns of a row, W = F * D, T keys
in all, H keys of one history, U columns of a unit's first layer.
Reference: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018,
arXiv:1706.06978.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.features import Lengths
from recsys.keys import Ids
from recsys.ranking.blocks import Mask, plain_mlp, pool_rows
from recsys.ranking.tower import DomainIndex, Tower, TowerConfig, check_hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class WithHistory:
    """A ranker and the attention in front of it."""

    tower: TowerConfig
    """The ranker, as without histories; not itself one with histories."""
    target: int
    """Place of the feature that histories are compared with, such as the candidate's id."""
    histories: tuple[int, ...]
    """Places of multi-valued features, each once; best with ``rows_of`` the target's."""
    hidden: tuple[int, ...] = (16,)
    """Widths of each activation unit's hidden layers; at least one."""
    normalise: bool = False
    """Weights of a history are a softmax, and so add up to 1."""
    seed: int = 0
    """Of the activation units' initial weights."""

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        if isinstance(self.tower, WithHistory):
            raise ConfigError("tower already has histories; name all of them in one WithHistory")
        places = (self.target, *self.histories)
        in_range = all(0 <= place < self.n_features for place in places)
        if not self.histories or len(set(places)) != len(places) or not in_range:
            raise ConfigError(
                f"want one target and at least one history, different places of 0 to {self.n_features - 1}; "
                f"got target={self.target}, histories={self.histories}"
            )

    @property
    def n_features(self) -> int:
        """F, those of the ranker."""
        return self.tower.n_features

    @property
    def vector_dim(self) -> int:
        """K, that of the ranker."""
        return self.tower.vector_dim

    @property
    def n_tasks(self) -> int:
        """L, those of the ranker."""
        return self.tower.n_tasks

    @property
    def domains(self) -> DomainIndex | None:
        """Those of the ranker."""
        return self.tower.domains

    def build(self) -> HistoryTower:
        """A tower at its initial weights: the same bits each time."""
        return HistoryTower(self)


def first_layer(
    weight_UC: Tensor, bias_U: Tensor, target_BK: Tensor, history_HK: Tensor, example_H: Tensor
) -> Tensor:
    """W [h, t, h - t, h ⊙ t] + b of each key, (H, U), C = 4 * K; ``example_H`` says whose history it is in.

    With W cut as its input is, that is (W₁ + W₃) h + W₄ (h ⊙ t), and (W₂ - W₃) t + b once per example:
    half the arithmetic of the plain form.
    """
    of_h, of_t, of_difference, of_product = weight_UC.t().chunk(4)
    by_target_BU = torch.addmm(bias_U, target_BK, of_t - of_difference)
    # Not by indexing: the gradient of that is added up in any order where there are several threads.
    by_target_HU, target_HK = (x.index_select(0, example_H) for x in (by_target_BU, target_BK))
    by_history_HU = torch.addmm(by_target_HU, history_HK, of_h + of_difference)
    return torch.addmm(by_history_HU, history_HK * target_HK, of_product)


class ActivationUnit(nn.Module):
    """What each key of a history weighs, given its target. Like any nn.Module."""

    def __init__(self, dim: int, hidden: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.mlp = plain_mlp((4 * dim, *hidden, 1), generator, ends_linear=True)

    def forward(self, target_BK: Tensor, history_HK: Tensor, example_H: Tensor) -> Tensor:
        """Weights, or logits of them, (H,)."""
        first, *others = self.mlp
        weight_UC, bias_U = first.get_parameter("weight"), first.get_parameter("bias")
        h = first_layer(weight_UC, bias_U, target_BK, history_HK, example_H)
        for layer in others:
            h = layer(h)
        return h.squeeze(1)


def attended(
    target_BK: Tensor,
    history_HK: Tensor,
    length_B: Tensor,
    unit: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    normalise: bool = False,
) -> Tensor:
    """Weighted sum of each example's history, (B, K); an empty one gives zeros. DIN eq. 3.

    ``history_HK`` holds ``length_B`` vectors per example, one after another. ``unit``, called as an
    ``ActivationUnit`` is, gives the weights, or with ``normalise`` their logits.
    """
    n_examples = len(target_BK)
    example_H = torch.repeat_interleave(torch.arange(n_examples), length_B)
    weight_H = unit(target_BK, history_HK, example_H)
    if normalise:
        weight_H = _softmax(weight_H, example_H, n_examples)
    sum_BK = history_HK.new_zeros(n_examples, history_HK.shape[1])
    return sum_BK.index_add(0, example_H, weight_H.unsqueeze(1) * history_HK)


def _softmax(logit_H: Tensor, example_H: Tensor, n_examples: int) -> Tensor:
    """Softmax within each example, (H,)."""
    lowest_B = logit_H.new_full((n_examples,), -torch.inf)
    largest_B = lowest_B.scatter_reduce(0, example_H, logit_H.detach(), "amax")
    power_H = (logit_H - largest_B.index_select(0, example_H)).exp()
    total_B = logit_H.new_zeros(n_examples).index_add(0, example_H, power_H)
    return power_H / total_B.index_select(0, example_H)


class HistoryTower(Tower):
    """Activation units and the ranker behind them. Any number of callers while nobody changes the weights."""

    def __init__(self, config: WithHistory) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(config.seed)
        self._config = config
        self.units = nn.ModuleList(
            ActivationUnit(config.vector_dim, config.hidden, generator) for _ in config.histories
        )
        self.ranker = config.tower.build()

    def pool(self, rows_TD: Tensor, lengths_BF: Lengths, is_mean_F: Mask) -> Tensor:
        """Rows as ``forward`` takes them, (B, W), out of each occurrence's, in the order of their keys."""
        config, n_tasks = self._config, self._config.n_tasks
        pooled_BW = pool_rows(rows_TD, lengths_BF, is_mean_F)
        part_F = list(pooled_BW.view(len(lengths_BF), config.n_features, -1).unbind(1))
        target_BK = part_F[config.target][:, n_tasks:]
        feature_T = _feature_of_keys(lengths_BF)
        for place, unit in zip(config.histories, self.units, strict=True):
            of_history_H = torch.from_numpy(np.flatnonzero(feature_T == place))
            history_HK = rows_TD.index_select(0, of_history_H)[:, n_tasks:]
            length_B = torch.from_numpy(lengths_BF[:, place].astype(np.int64))
            vector_BK = attended(target_BK, history_HK, length_B, unit, normalise=config.normalise)
            part_F[place] = torch.cat([part_F[place][:, :n_tasks], vector_BK], dim=1)
        return torch.cat(part_F, dim=1)

    def forward(self, pooled_BW: Tensor, *domain_B: Tensor) -> Tensor:
        """Log-odds of what ``pool`` gave, as the ranker's."""
        logit: Tensor = self.ranker(pooled_BW, *domain_B)
        return logit

    @property
    def trains_as_it_serves(self) -> bool:
        """Whether the ranker's forward pass in training gives what evaluation gives."""
        return self.ranker.trains_as_it_serves

    @property
    def reads_domain(self) -> bool:
        """Whether the ranker's outputs depend on the domains that are given."""
        return self.ranker.reads_domain

    def adapt(self) -> None:
        """Fold in what the ranker noted in the last training pass."""
        self.ranker.adapt()

    def fold(self) -> None:
        """Work out ahead what serving needs of the ranker."""
        self.ranker.fold()


def _feature_of_keys(lengths_BF: Lengths) -> Ids:
    """Place of the feature of each key, (T,)."""
    n_rows, n_features = lengths_BF.shape
    return np.repeat(np.tile(np.arange(n_features), n_rows), lengths_BF.ravel())
