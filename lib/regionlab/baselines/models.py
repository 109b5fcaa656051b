"""What every baseline is: a network that turns pictures into vectors, and has no words.

Behind `Encoder`'s face, so that indexes and searches take baselines as they take CLIP.
"""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import (
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

from regionlab.embedding import Encoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageModel(torch.nn.Module):
    """A network from pictures to vectors, in two parts: `features`, and how they are pooled.

    Attributes
    ----------
    preprocess
        Turns a PIL image into the (3, size, size) float tensor that the network was trained on.
    image_size
        The side of it in pixels.
    """

    def __init__(self, preprocess: Callable[[Image.Image], torch.Tensor], image_size: int):
        super().__init__()
        self.preprocess, self.image_size = preprocess, image_size

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the network makes of pictures, one vector a place."""
        raise NotImplementedError

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """Return (b, d), one vector a picture."""
        raise NotImplementedError

    def compute(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of (b, 3, size, size) pictures, those in bfloat16 computed in it.

        Always as float32, for pooling: powers and whitening lose too much in bfloat16.
        """
        with compute_in(pixels):
            return self.features(pixels).float()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn (b, 3, size, size) into (b, d) float32."""
        return self.pool(self.compute(pixels))

    def load_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Take over all weights of a file, by name.

        Raises
        ------
        RuntimeError
            If one is missing, of another shape, or not known here.
        """
        self.load_state_dict(state)

    # What an Encoder asks of CLIP

    @property
    def visual(self) -> "ImageModel":
        """The image tower, which is all there is."""
        return self

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (b, d) float32, not normalised."""
        return self(pixels)


class TimmModel(ImageModel):
    """A model around a network of timm, its `backbone`, that was trained to classify."""

    unused = "head."  # what timm calls the classifier, which the vectors do not need

    def __init__(self, backbone: torch.nn.Module, preprocess, image_size: int):
        super().__init__(preprocess, image_size)
        self.backbone = backbone

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights of a published file by the names that timm uses now."""
        return state

    def load_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Take over all weights of a file: a whole model's, or a network's as published.

        What a published network has no weights for, the pooling, stays as it is.
        """
        if not any(name.startswith("backbone.") for name in state):
            own = {n: t for n, t in self.state_dict().items() if not n.startswith("backbone.")}
            state = {f"backbone.{name}": tensor for name, tensor in self.convert(state).items()}
            state |= own
        unused = (f"backbone.{self.unused}", "classifier.")
        super().load_weights({n: t for n, t in state.items() if not n.startswith(unused)})


class ImageEncoder(Encoder):
    """An encoder of images alone: all of `Encoder` but texts."""

    def __init__(
        self, name: str, model: ImageModel, fingerprint: dict[str, Any], device: torch.device
    ):
        super().__init__(name, model, model.preprocess, None, fingerprint, device)

    def encode_texts(self, texts, **_):
        """Raise ValueError: the model has no text side."""
        raise ValueError(
            f"{self.name} encodes images only, it has no text side: search with a picture "
            "or a region, or with a CLIP model such as toyclip"
        )


def compute_in(pixels: torch.Tensor) -> torch.autocast:
    """Let networks with float32 weights compute in bfloat16 where pictures are given in it."""
    half = pixels.dtype == torch.bfloat16
    return torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=half)


def make_preprocess(size: int, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> Compose:
    """Return CLIP's preprocessing: the short side to `size`, bicubic, and the middle of it."""
    resize = Resize(size, interpolation=InterpolationMode.BICUBIC)
    return Compose([resize, CenterCrop(size), ToTensor(), Normalize(mean, std)])
