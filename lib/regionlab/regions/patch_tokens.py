"""Mask-pooled patch tokens: one forward pass gives the vectors of all regions of an image.

MaskCLIP (Zhou et al. 2022) found that CLIP's last attention, if each patch attends only to
itself, leaves vectors that still match words, one for each patch. A region's vector is their
mean over the region's mask.
"""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image

from regionlab.models.encoder import Encoder
from regionlab.models.spaces import to_unit

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # RGB in [0, 1], OpenAI's, as most models have
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PIXELS = 2**24  # of a mask that are floats at a time


def encode_region_tokens(
    encoder: Encoder, image: np.ndarray, masks: Iterable[np.ndarray], *, scale: int = 2
) -> np.ndarray:
    """Encode regions of an image by the mean of their patches' vectors, weighted by cover.

    Parameters
    ----------
    encoder, image, scale : See `encode_patches`.
    masks : (H, W) bool each, the image's own size, none of them empty.

    Returns
    -------
    np.ndarray
        (r, d) float32, unit length; NaN where the model's vectors are not finite, or cancel out.
    """
    patches = encode_patches(encoder, image, scale=scale)
    weights = [mask_to_grid(mask, patches.shape[:2]) for mask in masks]
    if not weights:
        return np.empty((0, patches.shape[2]), np.float32)
    weights = np.stack(weights)
    weights /= weights.sum((1, 2), keepdims=True)
    lost = ~np.isfinite(patches).all(axis=2)  # in the regions that cover them, and no others
    vectors = np.einsum("rhw,hwd->rd", weights, np.where(lost[..., None], 0, patches))
    vectors[(weights[:, lost] > 0).any(axis=1)] = np.nan
    return to_unit(vectors).astype(np.float32)


@torch.inference_mode()
def encode_patches(encoder: Encoder, image: np.ndarray, *, scale: int = 2) -> np.ndarray:
    """Encode every patch of an image in the space of the encoder's image and text vectors.

    The whole image is squashed to the tower's square, so nothing is cut off.

    Parameters
    ----------
    encoder : Its image tower is open_clip's VisionTransformer or ModifiedResNet.
    image : (H, W, 3) uint8 RGB.
    scale : How many times its native size a ResNet's input is: the grid is as much finer, for the
        price of its square. A ViT always gets its native size, which its positions are for.

    Returns
    -------
    np.ndarray
        (rows, columns, d) float32, not normalised.

    Raises
    ------
    ValueError : If the tower is of another kind, or `scale` is below 1.
    """
    visual = encoder.model.visual
    is_transformer = _check_tower(encoder.name, visual)
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    if is_transformer:
        patches = _encode_vit_patches(visual, _squash(encoder, image, 1))
    else:
        patches = _encode_resnet_patches(visual, _squash(encoder, image, scale))
    return patches[0].float().cpu().numpy()


def mask_to_grid(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return how much of each grid cell a mask covers, in [0, 1].

    Exact at any size: a pixel that lies in several cells counts in each by its part there, so
    a mask with a pixel always covers something.

    Parameters
    ----------
    mask : (H, W) bool.
    grid : Rows and columns of cells that the whole mask is divided into.

    Returns
    -------
    np.ndarray
        (rows, columns) float64.
    """
    rows, columns = (_overlap(n, cells) for n, cells in zip(mask.shape, grid, strict=True))
    # In blocks of columns: as floats a mask takes eight times its memory.
    blocks = np.array_split(mask, 1 + mask.size // PIXELS, axis=1)
    return np.hstack([rows @ block.astype(float) for block in blocks]) @ columns.T


def find_normalization(encoder: Encoder) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, RGB in [0, 1], of an encoder's preprocessing."""
    for transform in getattr(encoder.preprocess, "transforms", ()):
        if hasattr(transform, "mean") and hasattr(transform, "std"):
            return tuple(map(float, transform.mean)), tuple(map(float, transform.std))
    return CLIP_MEAN, CLIP_STD


def _check_tower(name: str, visual: torch.nn.Module) -> bool:
    """Return whether a tower is a transformer, else a ResNet; raise ValueError for another."""
    from regionlab.models.torchvision_cpu import import_open_clip  # late: it takes seconds

    import_open_clip()
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    kind = type(visual).__name__
    if isinstance(visual, VisionTransformer):
        if visual.attn_pool is None and len(visual.transformer.resblocks) > 1:
            return True
        kind += " with attentional pooling" if visual.attn_pool is not None else " of one block"
    elif isinstance(visual, ModifiedResNet):
        return False
    raise ValueError(
        f"{name} has no patch tokens that are known to match words: its image tower is a {kind}, "
        "not open_clip's plain VisionTransformer or ModifiedResNet; use another region encoding"
    )


def _squash(encoder: Encoder, image: np.ndarray, scale: int) -> torch.Tensor:
    """Resize to the tower's input, whatever the aspect, and normalise: (1, 3, h, w)."""
    size = encoder.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    resized = Image.fromarray(image).resize((width * scale, height * scale), Image.BICUBIC)
    mean, std = find_normalization(encoder)
    pixels = (np.asarray(resized, np.float32) / 255 - mean) / std
    pixels = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return pixels.to(encoder.device, encoder.dtype, memory_format=torch.channels_last)


def _encode_vit_patches(visual: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Let each patch attend only to itself in the last block: (b, rows, columns, d)."""
    *_, last = blocks = visual.transformer.resblocks
    tokens = visual.forward_intermediates(
        pixels,
        indices=[len(blocks) - 2],
        stop_early=True,
        intermediates_only=True,
        output_fmt="NLC",
    )["image_intermediates"][0]
    alone = tokens.flatten(0, 1).unsqueeze(1)  # each patch a sequence of its own
    patches = visual.ln_post(last(alone)) @ visual.proj
    return patches.reshape(len(tokens), *visual.grid_size, -1)


def _encode_resnet_patches(visual: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Project the last feature map as the attention pool does its values: (b, rows, columns, d)."""
    features = visual.forward_intermediates(pixels, indices=[4], intermediates_only=True)
    features = features["image_intermediates"][0].permute(0, 2, 3, 1)
    return visual.attnpool.c_proj(visual.attnpool.v_proj(features))


def _overlap(pixels: int, cells: int) -> np.ndarray:
    """Return what part of each cell each pixel takes, along one axis: (cells, pixels)."""
    edges, borders = np.arange(pixels + 1) / pixels, np.arange(cells + 1) / cells
    right = np.minimum(edges[1:], borders[1:, None])
    left = np.maximum(edges[:-1], borders[:-1, None])
    return np.maximum(right - left, 0) * cells
