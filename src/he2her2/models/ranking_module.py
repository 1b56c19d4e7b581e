"""Base of the torch modules of ranking aggregators."""

import torch
from torch import Tensor, nn


class RankingModule(nn.Module):
    """Base of aggregators that see each tile as one score.

    Attributes:
        beta: Sharpness of soft-argmax, which a training may raise from epoch to epoch.
    """

    beta = 1.0

    def forward(self, features: Tensor, coords_um: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Map the logits (b, m, k) of selected tiles to logits (b, 2) of the slides and equal contributions (b, m)."""
        return self.of_scores(expected_class(features, self.beta), mask), mask / mask.sum(dim=1, keepdim=True)

    def of_scores(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Map (b, m) scores, with a (b, m) bool mask (False = padding), to (b, 2) logits."""
        raise NotImplementedError


def expected_class(logits: Tensor, beta: float) -> Tensor:
    """Map (..., k) logits to (...) scores for any beta: soft-argmax (paper, equation 1) with a gradient."""
    centred = logits - logits.amax(dim=-1, keepdim=True).detach()  # (..., k), none above 0: nothing overflows
    share = torch.softmax(beta * centred, dim=-1)  # (..., k)
    return share @ torch.arange(logits.shape[-1], dtype=share.dtype, device=share.device)  # (...)
