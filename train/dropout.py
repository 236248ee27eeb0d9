"""Dropout that a CPU can afford: torch's draws one double an element on one core, a third of a small decoder's step.

Here one 64-bit draw decides eight elements, so the probability is rounded to 1/256 and scaled for what it became.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dropout(nn.Module):
    """As nn.Dropout; on a GPU it is nn.Dropout."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x with elements zeroed with probability p and the others divided by 1 - p; x itself in evaluation."""
        threshold = round(self.p * 256)
        if not self.training or threshold == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = (draws.view(torch.uint8)[: x.numel()] >= threshold).view(x.shape)
        return x * kept.to(x.dtype).mul_(256 / (256 - threshold))
