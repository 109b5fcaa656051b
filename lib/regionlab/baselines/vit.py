"""ViT + kNN: the features of a Vision Transformer trained to classify, compared by cosine.

Dosovitskiy et al. 2021; timm's own classes and weights.
"""

from functools import partial

import timm
import torch
from timm.data import create_transform, resolve_data_config
from timm.layers import HybridEmbed
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from timm.models.vision_transformer_hybrid import ConvStem

from regionlab.baselines.models import TimmModel, make_preprocess

TOY_SIDE = 128
TOY_WIDTH = 128


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
    pictures it learns far faster.
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
