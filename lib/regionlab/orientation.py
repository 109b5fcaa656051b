"""How a stored picture is turned to stand upright, and what was drawn on it with it.

EXIF counts eight orientations, from 1, upright; 5 to 8 lie on their side. `images.read_image`
gives every picture upright.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from regionlab.opening import open_picture
from regionlab.progress import progress

# EXIF orientation -> what puts stored pixels upright: rows mirrored, columns mirrored, transposed.
STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (True, True, False),
    4: (True, False, False),
    5: (False, False, True),
    6: (True, False, True),
    7: (True, True, True),
    8: (False, True, True),
}

MANY = 5000  # pictures, from which on a bar is shown, and several threads wait for the disk
READERS = 8


class Header(NamedTuple):
    """What the header of a picture says: its size in pixels as stored, and its orientation."""

    width: int
    height: int
    orientation: int

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the pixels in the file."""
        return self.width, self.height

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height of the picture as `images.read_image` gives it."""
        return self.stored[::-1] if is_sideways(self.orientation) else self.stored


def is_sideways(orientation: int) -> bool:
    """Tell whether width and height change places when a picture is put upright."""
    return STEPS[orientation][2]


def read_header(path: Path | str) -> Header | None:
    """Read the header of a picture, by the same rules as `images.read_image`.

    Returns
    -------
    Header or None
        None if it cannot be read; reading the picture will say why.
    """
    try:
        with open(path, "rb") as file, open_picture(file, path) as image:
            header = Header(*image.size, _read_orientation(image, path))
            # Of a TIFF, and of no other format, PIL gives the size upright.
            turned_back = Header(*header.upright, header.orientation)
            return turned_back if image.format == "TIFF" else header
    except Exception:  # on damaged files PIL's decoders raise almost any type
        return None


def read_headers(paths: Iterable[Path | str]) -> list[Header | None]:
    """Read the headers of many pictures, see `read_header`; some 0.1 ms each."""
    paths = list(paths)
    if len(paths) < MANY:
        return [read_header(path) for path in paths]
    with ThreadPoolExecutor(READERS) as pool:
        headers = pool.map(read_header, paths)
        return list(progress(headers, desc="read sizes", total=len(paths)))


def _read_orientation(image: Image.Image, path: Path | str) -> int:
    # For the marks that may follow a PNG's pixels, PIL would unpack them.
    if image.format == "PNG" and not _mentions_exif(Path(path).read_bytes()):
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF: the picture is shown as stored
        return 1
    return orientation if orientation in STEPS else 1


def _mentions_exif(data: bytes) -> bool:
    return any(mark in data for mark in (b"eXIf", b"exif", b"xmp", b"APP1"))


def turn_mask(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a mask of stored pixels upright.

    Parameters
    ----------
    mask
        (H, W) bool.
    orientation
        Of EXIF, 1 to 8.

    Returns
    -------
    np.ndarray
        (H, W) bool, or (W, H) from 5 on; contiguous.
    """
    rows, columns, transposed = STEPS[orientation]
    mask = mask[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(mask.T if transposed else mask)


def turn_box(
    box: tuple[float, float, float, float], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """Turn a box in stored pixels upright.

    Parameters
    ----------
    box
        XYXY in pixels.
    size
        Width and height of the picture as stored.
    orientation
        Of EXIF, 1 to 8.
    """
    (x0, y0, x1, y1), (width, height) = box, size
    rows, columns, transposed = STEPS[orientation]
    if columns:
        x0, x1 = width - x1, width - x0
    if rows:
        y0, y1 = height - y1, height - y0
    return (y0, x0, y1, x1) if transposed else (x0, y0, x1, y1)
