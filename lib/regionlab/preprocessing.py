"""A model's preprocessing in two halves: pictures one by one, then their numbers by the batch.

Pictures are resized and cut out by the very steps that came with the weights, in the threads that
read. What is left, from bytes to normalised numbers, is the same arithmetic on all pixels: it is
done for a whole batch, on the model's device and into its number format. Before that a picture
takes a quarter of the memory. Both halves together give the pixels of the whole, bit for bit.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

TO_NUMBERS = ({"ToTensor", "MaybeToTensor"}, {"Normalize"})  # of torchvision and open_clip
# A JPEG decoded at reduced scale keeps so many times the side that it is then resized to.
MARGIN = 4


class Preprocessing:
    """The halves of a preprocessing.

    Steps that are not understood stay together and are done picture by picture.

    Parameters
    ----------
    preprocess
        Turns a PIL image into the (3, h, w) float tensor that the model takes; best a torchvision
        `Compose`.
    device, dtype
        What the model computes on and in.

    Attributes
    ----------
    least_side
        Pixels that the shorter side of a picture should have at least for `shape`, where its
        decoder can make it smaller; None where that is not known to be harmless.
    """

    def __init__(
        self,
        preprocess: Callable[[Image.Image], torch.Tensor],
        device: torch.device,
        dtype: torch.dtype,
    ):
        self._device, self._dtype = device, dtype
        steps = list(getattr(preprocess, "transforms", ()))
        names = [type(step).__name__ for step in steps]
        self._is_split = len(steps) >= 2 and all(
            name in known for name, known in zip(names[-2:], TO_NUMBERS, strict=True)
        )
        self._steps = steps[:-2] if self._is_split else [preprocess]
        if self._is_split:
            scale = (torch.tensor(255.0), *map(torch.as_tensor, (steps[-1].mean, steps[-1].std)))
            self._scale = [numbers.to(device) for numbers in scale]
        self.least_side = MARGIN * _largest(steps[0].size) if names[:1] == ["Resize"] else None

    def shape(self, picture: Image.Image) -> np.ndarray | torch.Tensor:
        """Resize and cut out a picture: (h, w, 3) uint8, or what `preprocess` made of it."""
        for step in self._steps:
            picture = step(picture)
        return np.array(picture) if self._is_split else picture

    def stack(self, shaped: Sequence[np.ndarray | torch.Tensor]) -> torch.Tensor:
        """Turn b pictures by `shape` into the (b, 3, h, w) that the model takes."""
        if not self._is_split:
            return torch.stack(list(shaped))
        if self._device.type == "cpu":  # one by one they stay in the cache
            pixels = torch.stack([self._normalise(torch.from_numpy(one)) for one in shaped])
        else:
            pixels = self._normalise(torch.from_numpy(np.stack(shaped)).to(self._device))
        return pixels.movedim(-1, -3)

    def _normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        # Long rows, each with mean and deviation laid out along it, are what is fast.
        width = pixels.shape[-2]
        full, mean, std = self._scale
        mean, std = mean.repeat(width), std.repeat(width)
        rows = pixels.flatten(-2).float().div_(full).sub_(mean).div_(std)
        return rows.to(self._dtype).unflatten(-1, (width, 3))


def _largest(size: int | Sequence[int]) -> int:
    return size if isinstance(size, int) else max(size)
