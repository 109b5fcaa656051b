"""Pictures that visitors send, and pictures that they get."""

import hashlib
from io import BytesIO

import numpy as np
from fastapi import HTTPException
from PIL import Image

from regionlab.embedding import MAX_ASPECT
from regionlab.images import FORMATS, ImageError, read_image

UPLOAD = "upload-"  # ids of files that were sent begin so


def name_upload(data: bytes) -> str:
    """Return the id of a picture that was sent: who knows it knows the picture."""
    return UPLOAD + hashlib.sha256(data).hexdigest()[:32]


def read_upload(data: bytes, pixels: int) -> np.ndarray:
    """Read a picture that was sent, (H, W, 3) uint8 RGB.

    Parameters
    ----------
    data
        The file.
    pixels
        How many it may have.

    Raises
    ------
    HTTPException
        413 if it has more pixels, 422 if it is no picture.
    """
    width, height = _peek_size(data)
    if width * height > pixels:
        size = f"{width} x {height} pixels"
        raise HTTPException(413, f"the image is too large: {size}, at most {pixels:,} in all")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise HTTPException(422, f"the image is too narrow: {width} x {height} pixels")
    try:
        return read_image(data)
    except ImageError as e:
        raise HTTPException(422, f"the image cannot be read: {e.reason}") from e


def _peek_size(data: bytes) -> tuple[int, int]:
    """Return width and height as the header has them."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Image.DecompressionBombError as e:
        raise HTTPException(413, f"the image is too large: {e}") from e
    except Exception as e:  # on damaged files PIL raises almost any type
        raise HTTPException(422, f"not an image (known: {', '.join(FORMATS)})") from e
