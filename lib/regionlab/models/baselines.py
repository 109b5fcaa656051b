"""The papers' baselines as image encoders: ViT, Deep Image Retrieval and SegNet.

Deep Image Retrieval is a ResNet pooled by generalized mean, and whitened: Gordo et al. 2017, the
pooling of Radenović et al. 2019, trained as in Revaud et al. 2019. SegNet (Badrinarayanan, Kendall
and Cipolla 2017) has a decoder that puts values back where pooling took them from; the vector is
its encoder's last map, averaged.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import max_pool2d, max_unpool2d, normalize
from torch.nn.utils import skip_init

from regionlab.models import torchvision_cpu  # noqa: F401 - makes timm importable on a CPU-only torch
from regionlab.models.encoder import Encoder, ImageSource
from regionlab.models.weights import Published, WeightsError
from regionlab.util.paths import expand

import timm  # isort: skip
from timm.data import create_transform, resolve_data_config  # isort: skip
from timm.layers import HybridEmbed  # isort: skip
from timm.models.resnet import BasicBlock, ResNet  # isort: skip
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn  # isort: skip
from timm.models.vision_transformer_hybrid import ConvStem  # isort: skip
from torchvision.transforms import (  # isort: skip
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
TOY_SIDE = TOY_WIDTH = 128
TOY_KEPT = 32  # dimensions; on Toybox val more are worse, as the last ones are mostly noise
Blocks = tuple[tuple[int, ...], ...]
VGG16: Blocks = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
TOY: Blocks = ((16,), (32,), (64,), (128, 128), (128,))
SEGNET_SIDE = 224


class ImageModel(torch.nn.Module):
    """A network from images to vectors, in two parts: `features`, and how they are pooled.

    Attributes
    ----------
    preprocess
        Turns a PIL image into the (3, size, size) float tensor that the network was trained on.
    image_size : The side of it in pixels.
    """

    def __init__(self, preprocess: Callable[[Image.Image], torch.Tensor], image_size: int):
        super().__init__()
        self.preprocess, self.image_size = preprocess, image_size

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the network makes of images, one vector a place."""
        raise NotImplementedError

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """Return (b, d), one vector an image."""
        raise NotImplementedError

    def compute(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of (b, 3, size, size) images, those in bfloat16 computed in it.

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
        RuntimeError : If one is missing, of another shape, or not known here.
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
    """Let networks with float32 weights compute in bfloat16 where images are given in it."""
    half = pixels.dtype == torch.bfloat16
    return torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=half)


def make_preprocess(size: int, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> Compose:
    """Return CLIP's preprocessing: the short side to `size`, bicubic, and the middle of it."""
    resize = Resize(size, interpolation=InterpolationMode.BICUBIC)
    return Compose([resize, CenterCrop(size), ToTensor(), Normalize(mean, std)])


class ViT(TimmModel):
    """A Vision Transformer of timm; the vector is what its classifier would see."""

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the tokens, (b, tokens, width)."""
        return self.backbone.forward_features(pixels)

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """Return the class token, or the mean, whichever the model was trained with."""
        return self.backbone.forward_head(features, pre_logits=True)

    def convert(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights by timm's names: some are published in older forms."""
        return checkpoint_filter_fn(state, self.backbone)


def create_vit(architecture: str) -> ViT:
    """Build one of timm's Vision Transformers with random weights and its own preprocessing."""
    backbone = timm.create_model(architecture, num_classes=0)
    settings = resolve_data_config(model=backbone)
    return ViT(backbone, create_transform(**settings), settings["input_size"][-1])


def create_toyvit() -> ViT:
    """Build toyvit with random weights.

    A stem of four convolutions stands for the patches of 16 pixels (Xiao et al. 2021): with few
    images it learns far faster.
    """
    stem = ConvStem(depth=4, channels=(16, 32, 64, TOY_WIDTH), stride=(2, 2, 2, 2))
    backbone = VisionTransformer(
        img_size=TOY_SIDE,
        patch_size=1,  # of the stem's map
        embed_dim=TOY_WIDTH,
        depth=4,
        num_heads=4,
        mlp_ratio=3,
        class_token=False,
        global_pool="avg",
        num_classes=0,
        embed_layer=partial(HybridEmbed, backbone=stem, proj=False),
    )
    return ViT(backbone, make_preprocess(TOY_SIDE), TOY_SIDE)


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
        ValueError : If the vectors do not vary in as many directions as are kept.
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
    encoder : Of Deep Image Retrieval; it stays as it is.
    images : More of them than dimensions, as for `Encoder.encode_images`.
    path : Where the weights go, as safetensors.
    kept : Dimensions of the whitened vectors; None keeps all.

    Raises
    ------
    ValueError : If the encoder is another, or the images are too few.
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


# SegNet


class SegNet(ImageModel):
    """SegNet for any sizes.

    Parameters
    ----------
    blocks : Channels of the encoder's convolutions, a block each between two poolings; the decoder
        mirrors them.
    classes : How many classes a pixel may have.
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
    return SegNet(VGG16, classes, SEGNET_SIDE)


def create_toysegnet(classes: int = 13) -> SegNet:
    """Build toysegnet with random weights: Toybox's shapes, and the ground."""
    return SegNet(TOY, classes, TOY_SIDE)


# By name


ALONE: dict[str, Callable[[], ImageModel]] = {
    "toyvit": create_toyvit,
    "toydir": create_toydir,
    "toysegnet": create_toysegnet,
    "segnet": create_segnet,
}
# Their module in timm, and what builds one of its models
FAMILIES: dict[str, tuple[str, Callable[[str], ImageModel]]] = {
    "vit": ("vision_transformer", create_vit),
    "dir": ("resnet", create_dir),
}


def create(architecture: str) -> ImageModel:
    """Build a baseline with random weights: "toyvit", or "vit/<timm name>"."""
    family, _, name = architecture.partition("/")
    model = FAMILIES[family][1](name) if name else ALONE[architecture]()
    return model.to(memory_format=torch.channels_last)  # convolutions like it, by far


def list_published() -> list[str]:
    """List the baselines that timm publishes weights of: "vit/<timm name>", "dir/<timm name>"."""
    return [
        f"{family}/{name}"
        for family, (module, _) in FAMILIES.items()
        for name in timm.list_models(module=module, pretrained=True)
    ]


def list_architectures(family: str) -> list[str]:
    """List the names that timm knows for a family, "vit" or "dir"."""
    return timm.list_models(module=FAMILIES[family][0])


def list_tags(architecture: str, family: str) -> list[str]:
    """List the names, with tags, of an architecture's published weights."""
    return timm.list_models(f"{architecture}.*", module=FAMILIES[family][0], pretrained=True)


def find_published(name: str) -> Published:
    """Return what timm publishes of a model, with the tag of its weights or without."""
    entry = timm.get_pretrained_cfg(name)
    if not entry or not entry.hf_hub_id:
        raise WeightsError(f"timm publishes no weights of {name}: say {name}/<a file>")
    full_name = f"{entry.architecture}.{entry.tag}" if entry.tag else name
    return Published(full_name, full_name, hub=entry.hf_hub_id, files=("model.safetensors",))
