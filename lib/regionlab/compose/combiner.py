"""Combiner: a small network that learns how an image and a text become one query.

Baldrati et al. 2022, section 4.3, which S4 follows; layers as in their published code.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from regionlab.util.errors import InputError

LOGIT_SCALE = 100.0  # fixed, in both stages of training


@dataclass(frozen=True)
class CombinerSize:
    """How large a Combiner is: `projection` and `hidden` are multiples of the width d.

    S4's authors have 4 and 8: 2,560 and 5,120 units for the 640 of RN50x4.
    """

    width: int
    projection: int = 4
    hidden: int = 8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} of a Combiner is a whole number from 1 up, not {value!r}")


class Combiner(nn.Module):
    """Image and text features to a query: a learned vector plus a learned mix of the two.

    c = [drop(relu(Wt t)); drop(relu(Wi i))], v = Wo drop(relu(Wc c)),
    lambda = sigmoid(W2 drop(relu(W1 c))), out = normalize(v + lambda t + (1 - lambda) i).
    """

    def __init__(self, size: CombinerSize, *, dropout: float = 0.5):
        super().__init__()
        d, p, h = size.width, size.projection * size.width, size.hidden * size.width
        self.size = size
        self.project_text = _layer(d, p, dropout)
        self.project_image = _layer(d, p, dropout)
        self.combine = nn.Sequential(_layer(2 * p, h, dropout), nn.Linear(h, d))
        self.mix = nn.Sequential(_layer(2 * p, h, dropout), nn.Linear(h, 1), nn.Sigmoid())

    def forward(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Compose (b, d) features, as long as the models make them, to (b, d) unit vectors."""
        joint = torch.cat([self.project_text(texts), self.project_image(images)], dim=-1)
        share = self.mix(joint)
        return normalize(self.combine(joint) + share * texts + (1 - share) * images, dim=-1)

    @torch.inference_mode()
    def compose(self, images: np.ndarray, texts: np.ndarray, *, batch: int = 4096) -> np.ndarray:
        """Compose arrays of features, (q, d) float32 each, to (q, d) float32 unit vectors."""
        device = next(self.parameters()).device
        parts = zip(*(torch.as_tensor(x).split(batch) for x in (images, texts)), strict=True)
        self.eval()
        out = [self(i.to(device), t.to(device)).cpu().numpy() for i, t in parts]
        return np.concatenate([np.empty((0, self.size.width), np.float32), *out])


def _layer(inputs: int, units: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(dropout))
