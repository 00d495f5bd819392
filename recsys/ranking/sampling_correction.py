"""Learning from some of the negatives as if from all of them: log-odds corrections.

All positives are kept, and each negative with its rate r(x). With f the true log-odds, the odds among
what is kept are the true ones over r. So either the loss is put on raised log-odds and f itself is
served, for any r(x), or a model that was trained without that is corrected when it serves, which
needs one known r. Doing both, or clipping the raised log-odds, breaks calibration.

Axes: B rows of a batch, L labels.
References: Wang, Zhang, Wang, "Nonuniform Negative Sampling and Log Odds Correction with Rare Events
Data", NeurIPS 2021, arXiv:2110.13048; Liu et al., "Monolith", ORSUM@RecSys 2022, arXiv:2209.07663,
sec. 2.2.2. Fast emit: Ktena et al., "Addressing Delayed Feedback for Continuous Training with Neural
Networks in CTR prediction", RecSys 2019, arXiv:1907.06558 (fake negatives).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.ranking.statements import Statements


def training_logits(logit_B: Tensor, sample_rate_B: Tensor, is_fast_B: Tensor) -> Tensor:
    """Log-odds of label 1 among what was kept, (B,), given the true ones, f, of each row.

    f - ln r; and ln σ(f) - ln r where a positive was stated as a negative too: then p : r are the odds.
    """
    stated_B = torch.where(is_fast_B, nn.functional.logsigmoid(logit_B), logit_B)
    return stated_B - sample_rate_B.log()


def corrected_loss(logit_B: Tensor, label_B: Tensor, stated: Statements) -> Tensor:
    """Sum of the rows' log losses under what was kept, each times its weight; a scalar.

    A row of weight -1 subtracts the loss that it takes back, so the sum may be negative.
    """
    return nn.functional.binary_cross_entropy_with_logits(
        training_logits(logit_B, torch.tensor(stated.sample_rate_B), torch.tensor(stated.is_fast_B)),
        label_B,
        weight=torch.tensor(stated.weight_B),
        reduction="sum",
    )


def tasks_loss(logit_BL: Tensor, label_BL: Tensor, stated_L: Sequence[Statements | None]) -> Tensor:
    """Sum of the log losses of all labels; a scalar. A NaN label is not stated, and costs nothing.

    Of one label alone all rows are to be stated: a NaN makes the loss NaN.
    """
    if len(stated_L) == 1:
        return _task_loss(logit_BL[:, 0], label_BL[:, 0], stated_L[0])
    losses = []
    for logit_B, label_B, stated in zip(logit_BL.unbind(1), label_BL.unbind(1), stated_L, strict=True):
        is_stated_B = ~label_B.isnan()
        of_label = None if stated is None else stated.rows(is_stated_B.numpy())
        losses.append(_task_loss(logit_B[is_stated_B], label_B[is_stated_B], of_label))
    return torch.stack(losses).sum()


def _task_loss(logit_B: Tensor, label_B: Tensor, stated: Statements | None) -> Tensor:
    if stated is None:
        return nn.functional.binary_cross_entropy_with_logits(logit_B, label_B, reduction="sum")
    return corrected_loss(logit_B, label_B, stated)


def serving_shift(sample_rate: float) -> float:
    """ln r: what a model trained without the correction must add to its log-odds when it serves.

    p = p_s / (p_s + (1 - p_s) / r). Raises ConfigError unless the rate is in (0, 1].
    """
    if not 0.0 < sample_rate <= 1.0:
        raise ConfigError(f"sample_rate must be in (0, 1], got {sample_rate}")
    return math.log(sample_rate)
