"""Losses on predicted masks, for soft targets: the cover of each cell instead of 0 or 1."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits


def focal_loss(logits: torch.Tensor, target: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss (Lin et al. 2017) for soft targets, (n, m): the mean over each mask's cells.

    Parameters
    ----------
    logits
        (n, m, g, g).
    target
        (n, 1, g, g) in [0, 1].
    """
    target = target.expand_as(logits)
    missed = (target - logits.sigmoid()).abs().pow(gamma)
    return (missed * binary_cross_entropy_with_logits(logits, target, reduction="none")).mean(
        (2, 3)
    )


def dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Dice loss with squares (Milletari et al. 2016), (n, m): zero where the cover is exact."""
    found = logits.sigmoid()
    both = (found * target).sum((2, 3))
    return 1 - 2 * both / (found.square().sum((2, 3)) + target.square().sum((2, 3)) + 1e-6)


def iou_of_logits(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """IoU of thresholded masks with thresholded targets, (n, m)."""
    found, meant = logits > 0, target > 0.5
    both, either = (found & meant).sum((2, 3)), (found | meant).sum((2, 3))
    return both / either.clamp(min=1)
