"""Deep Image Retrieval: a ResNet pooled by generalized mean, and whitened.

Gordo et al. 2017; the pooling of Radenović et al. 2019; trained as in Revaud et al. 2019.
"""

import copy
from collections.abc import Iterable
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models.resnet import BasicBlock, ResNet
from torch.nn.functional import normalize

from regionlab.baselines.models import ImageEncoder, TimmModel, make_preprocess
from regionlab.embedding import ImageSource
from regionlab.paths import expand

TOY_SIDE = 128
TOY_KEPT = 32  # dimensions; on Toybox val more are worse, as the last ones are mostly noise


class GeM(torch.nn.Module):
    """Pool a map by the generalized mean, (mean of x^p)^(1/p), with a p that is learned.

    1 is the mean, infinity the maximum (Radenović et al. 2019, equation 4). What is below
    `smallest` counts as that.
    """

    def __init__(self, p: float = 3.0, smallest: float = 1e-6):
        super().__init__()
        self.p, self.smallest = torch.nn.Parameter(torch.tensor([p])), smallest

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Turn (b, d, h, w) into (b, d)."""
        powers = features.clamp(min=self.smallest).pow(self.p)
        return powers.mean((2, 3)).pow(1 / self.p)


class Whitening(torch.nn.Module):
    """Centre vectors and turn them so that their covariance is the identity: PCA whitening.

    Jégou and Chum 2012. Until fitted it changes nothing.
    """

    def __init__(self, dim: int, kept: int | None = None):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim)[:, :kept].contiguous())

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Turn (b, dim) into (b, kept)."""
        return (vectors - self.mean) @ self.matrix

    def fit(self, vectors: torch.Tensor) -> None:
        """Learn from vectors (n, dim): the directions of most variance, each scaled to 1.

        Raises
        ------
        ValueError
            If the vectors do not vary in as many directions as are kept.
        """
        vectors = vectors.double()
        kept = self.matrix.shape[1]
        centred = vectors - vectors.mean(0)
        variances, directions = torch.linalg.eigh(centred.T @ centred / (len(vectors) - 1))
        variances, directions = variances.flip(0)[:kept], directions.flip(1)[:, :kept]
        if not variances[-1] > 1e-9 * variances[0]:
            found = int((variances > 1e-9 * variances[0]).sum())
            raise ValueError(
                f"{len(vectors)} vectors vary in {found} directions only, {kept} are to be kept: "
                "whitening needs more vectors, or fewer dimensions"
            )
        self.mean.copy_(vectors.mean(0))
        self.matrix.copy_(directions / variances.sqrt())


class DeepImageRetrieval(TimmModel):
    """A ResNet of timm, its last map pooled by `GeM`, made unit length, and whitened."""

    unused = "fc."

    def __init__(self, backbone: ResNet, preprocess, image_size: int, *, kept: int | None = None):
        super().__init__(backbone, preprocess, image_size)
        self.gem = GeM()
        self.whitening = Whitening(backbone.num_features, kept)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the last map, (b, d, h, w), not negative."""
        return self.backbone.forward_features(pixels)

    def describe(self, features: torch.Tensor) -> torch.Tensor:
        """Return (b, d) unit vectors before whitening, which are what is trained."""
        return normalize(self.gem(features), dim=1)

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """Return (b, kept), whitened."""
        return self.whitening(self.describe(features))

    def load_weights(self, state: dict[str, torch.Tensor]) -> None:
        """Take over all weights of a file, with whitening to as many dimensions as it has."""
        if "whitening.matrix" in state:
            self.whitening = Whitening(*state["whitening.matrix"].shape)
        super().load_weights(state)


def create_dir(architecture: str) -> DeepImageRetrieval:
    """Build Deep Image Retrieval on one of timm's ResNets, with random weights."""
    backbone = timm.create_model(architecture, num_classes=0)
    settings = resolve_data_config(model=backbone)
    return DeepImageRetrieval(backbone, create_transform(**settings), settings["input_size"][-1])


def create_toydir() -> DeepImageRetrieval:
    """Build toydir with random weights: a small ResNet with a map of 8 by 8 places."""
    backbone = ResNet(
        BasicBlock,
        (1, 1, 1, 1),
        channels=(24, 48, 96, 128),
        stem_type="deep",
        stem_width=12,
        output_stride=16,
        num_classes=0,
    )
    return DeepImageRetrieval(backbone, make_preprocess(TOY_SIDE), TOY_SIDE, kept=TOY_KEPT)


def learn_whitening(
    encoder: ImageEncoder,
    images: ImageSource | Iterable[ImageSource],
    path: Path | str,
    *,
    kept: int | None = None,
) -> Path:
    """Write the weights of Deep Image Retrieval with whitening learned from images.

    To load as `dir/<timm name>/<path>`: published networks have none. Learn from images that are
    not searched, as the papers do.

    Parameters
    ----------
    encoder
        Of Deep Image Retrieval; it stays as it is.
    images
        More of them than dimensions, as for `Encoder.encode_images`.
    path
        Where the weights go, as safetensors.
    kept
        Dimensions of the whitened vectors; None keeps all.

    Raises
    ------
    ValueError
        If the encoder is another, or the images are too few.
    """
    if not isinstance(encoder.model, DeepImageRetrieval):
        raise ValueError(f"{encoder.name} is no Deep Image Retrieval: it has no whitening to learn")
    model, dim = copy.deepcopy(encoder.model), encoder.model.backbone.num_features
    model.whitening = Whitening(dim).to(encoder.device)
    plain = ImageEncoder(encoder.name, model, encoder.fingerprint, encoder.device)
    vectors = torch.from_numpy(plain.encode_images(images))
    model.whitening = Whitening(dim, kept)
    model.whitening.fit(vectors)
    path = expand(path)
    save_file({name: t.cpu().contiguous() for name, t in model.state_dict().items()}, path)
    return path
