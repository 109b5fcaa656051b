"""Pictures and masks as the bytes that a browser shows."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from regionlab.images import JPEG_QUALITY, make_thumbnail, read_image
from regionlab.region_figures import tint_mask


def as_image(image: np.ndarray | Path | str) -> np.ndarray:
    """Return an (H, W, 3) uint8 RGB image, read from its file where a path is given."""
    return image if isinstance(image, np.ndarray) else read_image(image)


def encode_image(image: np.ndarray, side: int) -> bytes:
    """Encode an (H, W, 3) uint8 image as JPEG, shrunk so that no side exceeds `side`."""
    # Full colour resolution: small drawings would get smeared edges.
    options = {"quality": JPEG_QUALITY, "subsampling": 0}
    return _encode(make_thumbnail(image, side), "JPEG", **options)


def encode_mask(mask: np.ndarray, color: str, side: int) -> bytes:
    """Encode an (H, W) bool mask as a see-through PNG in `color`, no side above `side`."""
    step = -(-max(mask.shape) // side)
    return _encode(tint_mask(mask[::step, ::step], color), "PNG", compress_level=1)


def _encode(pixels: np.ndarray, kind: str, **options) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()
