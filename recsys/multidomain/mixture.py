"""What a gate makes of several experts' outputs.

Axes: B examples, E experts, H columns of an expert's output.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mixture(output_BEH: Tensor, logit_BE: Tensor) -> Tensor:
    """Outputs of E experts, weighed by the softmax of the gate's logits, (B, H)."""
    # A product of small matrices for each row would take four times as long on a CPU.
    return (torch.softmax(logit_BE, dim=1).unsqueeze(2) * output_BEH).sum(dim=1)
