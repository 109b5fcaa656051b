"""A loss that is one less the mean average precision of a batch, made differentiable by bins."""

import torch

BINS = 25


def ap_loss(vectors: torch.Tensor, relevant: torch.Tensor, *, bins: int = BINS) -> torch.Tensor:
    """Return 1 - mAP of the pictures of a batch, each a query against all others.

    Similarities are shared out between bins (Revaud et al. 2019, equations 6 to 9), so that
    ranks change smoothly. A picture that no other is relevant for asks nothing; where none asks,
    the loss is 1 and teaches nothing.

    Parameters
    ----------
    vectors
        (b, d) float32, unit length.
    relevant
        (b, b) bool; what it says of a picture and itself is ignored.
    bins
        Over the similarities from 1 down to -1.
    """
    others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    relevant = (relevant & others).float()
    centres = torch.linspace(1, -1, bins, device=vectors.device)
    distance = (vectors @ vectors.T)[:, None] - centres[:, None]  # (b, bins, b)
    shares = (1 - distance.abs() * (bins - 1) / 2).clamp(min=0) * others[:, None]
    hits, ranked = (shares * relevant[:, None]).sum(2), shares.sum(2)
    precision = hits.cumsum(1) / ranked.cumsum(1).clamp(min=1e-6)
    wanted = relevant.sum(1)
    average = (precision * hits).sum(1) / wanted.clamp(min=1)
    return 1 - average.sum() / (wanted > 0).sum().clamp(min=1)
