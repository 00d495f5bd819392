"""Learning from some of the negatives as if from all of them: log-odds corrections.

All positives are kept, and each negative with its rate r(x). With f the true log-odds, the odds among
what is kept are the true ones over r. So either the loss is put on raised log-odds and f itself is
served, for any r(x), or a model that was trained without that is corrected when it serves, which
needs one known r. Doing both, or clipping the raised log-odds, breaks calibration.

Axes: B rows of a batch.
References: Wang, Zhang, Wang, "Nonuniform Negative Sampling and Log Odds Correction with Rare Events
Data", NeurIPS 2021, arXiv:2110.13048; Liu et al., "Monolith", ORSUM@RecSys 2022, arXiv:2209.07663,
sec. 2.2.2. Fast emit: Ktena et al., "Addressing Delayed Feedback for Continuous Training with Neural
Networks in CTR prediction", RecSys 2019, arXiv:1907.06558 (fake negatives).
"""

from __future__ import annotations

import math

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


def serving_shift(sample_rate: float) -> float:
    """ln r: what a model trained without the correction must add to its log-odds when it serves.

    p = p_s / (p_s + (1 - p_s) / r). Raises ConfigError unless the rate is in (0, 1].
    """
    if not 0.0 < sample_rate <= 1.0:
        raise ConfigError(f"sample_rate must be in (0, 1], got {sample_rate}")
    return math.log(sample_rate)
