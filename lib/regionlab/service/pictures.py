"""Pictures that visitors send, and pictures that they get."""

import hashlib
from typing import BinaryIO

import numpy as np
from fastapi import HTTPException
from PIL import Image

from regionlab.embedding import MAX_ASPECT
from regionlab.images import FORMATS, ImageError, read_image

UPLOAD = "upload-"  # ids of files that were sent begin so


def name_upload(data: bytes) -> str:
    """Return the id of a picture that was sent: who knows it knows the picture."""
    return UPLOAD + hashlib.sha256(data).hexdigest()[:32]


def peek_size(file: BinaryIO, pixels: int) -> tuple[int, int]:
    """Return width and height as the header of a picture has them; nothing is unpacked.

    Parameters
    ----------
    file
        At its beginning; it is left wherever the header ends.
    pixels
        How many it may have.

    Raises
    ------
    HTTPException
        413 if it has more pixels, 422 if it is no picture, or as narrow as a line.
    """
    try:
        width, height = Image.open(file, formats=FORMATS).size
    except Image.DecompressionBombError as e:
        raise HTTPException(413, f"the image is too large: {e}") from e
    except Exception as e:  # on damaged files PIL raises almost any type
        raise HTTPException(422, f"not an image (known: {', '.join(FORMATS)})") from e
    if width * height > pixels:
        size = f"{width} x {height} pixels"
        raise HTTPException(413, f"the image is too large: {size}, at most {pixels:,} in all")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise HTTPException(422, f"the image is too narrow: {width} x {height} pixels")
    return width, height


def read_upload(data: bytes) -> np.ndarray:
    """Read a picture that was sent, (H, W, 3) uint8 RGB; HTTPException 422 if it is damaged."""
    try:
        return read_image(data)
    except ImageError as e:
        raise HTTPException(422, f"the image cannot be read: {e.reason}") from e
