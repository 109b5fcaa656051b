"""SegNet: an encoder and a decoder that puts values back where pooling took them from.

Badrinarayanan, Kendall and Cipolla 2017. Its encoder's last map, averaged, is the vector.
"""

from itertools import pairwise

import torch
from torch.nn.functional import max_pool2d, max_unpool2d
from torch.nn.utils import skip_init

from regionlab.models.baselines import ImageModel, compute_in, make_preprocess

Blocks = tuple[tuple[int, ...], ...]
VGG16: Blocks = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
TOY: Blocks = ((16,), (32,), (64,), (128, 128), (128,))
SIDE, TOY_SIDE = 224, 128


class SegNet(ImageModel):
    """SegNet for any sizes.

    Parameters
    ----------
    blocks
        Channels of the encoder's convolutions, a block each between two poolings; the decoder
        mirrors them.
    classes
        How many classes a pixel may have.
    """

    def __init__(self, blocks: Blocks, classes: int, image_size: int):
        super().__init__(make_preprocess(image_size), image_size)
        self.encoder, self.decoder = torch.nn.ModuleList(), torch.nn.ModuleList()
        entering = 3
        for widths in blocks:
            self.encoder.append(_chain(entering, *widths))
            self.decoder.insert(0, _chain(*widths[::-1], entering))
            entering = widths[-1]
        self.decoder[-1] = _chain(*blocks[0][::-1])  # the classifier is the last of it
        self.classifier = torch.nn.Conv2d(blocks[0][0], classes, 3, padding=1)

    def encode(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the last map, (b, d, h, w), and for each pooling the indices it took."""
        x, places = pixels, []
        for block in self.encoder:
            x, indices = max_pool2d(block(x), 2, return_indices=True)
            places.append(indices)
        return x, places

    def segment(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits of each pixel's class, (b, classes, size, size) float32."""
        with compute_in(pixels):
            x, places = self.encode(pixels)
            for block, indices in zip(self.decoder, reversed(places), strict=True):
                x = block(max_unpool2d(x, indices, 2))
            return self.classifier(x).float()

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the encoder's last map, (b, d, h, w)."""
        return self.encode(pixels)[0]

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """Return the mean over all places, (b, d)."""
        return features.mean((2, 3))

    def load_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Take over all weights of a file, for as many classes as it knows."""
        shape = self.classifier.in_channels, len(state["classifier.bias"])
        self.classifier = skip_init(torch.nn.Conv2d, *shape, 3, padding=1)
        super().load_weights(state)


def _chain(*widths: int) -> torch.nn.Sequential:
    """Convolutions from each width to the next, with batch norm and ReLU."""
    layers = []
    for entering, leaving in pairwise(widths):
        layers += [torch.nn.Conv2d(entering, leaving, 3, padding=1),
                   torch.nn.BatchNorm2d(leaving), torch.nn.ReLU()]  # fmt: skip
    return torch.nn.Sequential(*layers)


def create_segnet(classes: int = 11) -> SegNet:
    """Build SegNet in the paper's sizes, those of VGG-16, with random weights."""
    return SegNet(VGG16, classes, SIDE)


def create_toysegnet(classes: int = 13) -> SegNet:
    """Build toysegnet with random weights: Toybox's shapes, and the ground."""
    return SegNet(TOY, classes, TOY_SIDE)
