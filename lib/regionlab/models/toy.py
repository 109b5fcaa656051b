"""toysam: the small SAM of Toybox, segment_anything's own classes in small sizes."""

from pathlib import Path

from regionlab.models import torchvision_cpu  # noqa: F401 - makes open_clip importable on a CPU-only torch
from regionlab.util.paths import DATA

import open_clip  # isort: skip
from functools import partial

import torch

from segment_anything.modeling import (  # isort: skip
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)


HERE = Path(__file__).parent
CONFIG = HERE / "toyclip.json"
VOCABULARY = HERE / "toyclip_bpe.txt.gz"  # the first merges of CLIP's own: 8,192 tokens
WEIGHTS = DATA / "toybox" / "toyclip.safetensors"


def register_toyclip() -> None:
    """Make "toyclip" a model name that open_clip's factory knows."""
    if "toyclip" not in open_clip.list_models():
        open_clip.add_model_config(CONFIG)


def create_toyclip(pretrained: str | Path | None = None):
    """Return (model, preprocess, tokenizer) as open_clip makes them.

    Parameters
    ----------
    pretrained
        Weights file; None for random weights.
    """
    register_toyclip()
    model, _, preprocess = open_clip.create_model_and_transforms(
        "toyclip", pretrained=str(pretrained) if pretrained else None
    )
    tokenizer = open_clip.get_tokenizer("toyclip", bpe_path=str(VOCABULARY))
    return model, preprocess, tokenizer


WEIGHTS_TOYSAM = DATA / "toybox" / "toysam.safetensors"

SIDE = 128  # pixels of the longer side of what the image encoder sees
PATCH = 8
WIDTH = 128  # of the image encoder
DIM = 128  # of prompts and of the image embedding


def create_toysam(weights: Path | None = None) -> Sam:
    """Build toysam, in evaluation mode on the CPU.

    Parameters
    ----------
    weights
        A safetensors file; None for random weights.
    """
    grid = SIDE // PATCH
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=6,
            num_heads=4,
            mlp_ratio=4,
            out_chans=DIM,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=DIM,
            image_embedding_size=(grid, grid),
            input_image_size=(SIDE, SIDE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer=TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=4, mlp_dim=256),
            transformer_dim=DIM,
            iou_head_hidden_dim=DIM,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()
    if weights is not None:
        from safetensors.torch import load_file

        sam.load_state_dict({name: t.float() for name, t in load_file(weights).items()})
    return sam
