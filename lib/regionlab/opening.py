"""Open a picture by PIL: of the formats that are read, and not above a size."""

import os
import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from regionlab.suffixes import has_heif

# A fixed list keeps PIL's rarely used decoders away from files that nobody vouches for. HEIF is
# read besides, where pillow-heif is installed.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")

LIMIT_VARIABLE = "REGIONLAB_MAX_PIXELS"


class ImageError(ValueError):
    """A picture that cannot be read: `path` says which, `reason` says why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)  # both in args, so that it survives pickling
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_limit(environ: Mapping[str, str]) -> int:
    """Return how many pixels a picture may have; `REGIONLAB_MAX_PIXELS` sets another number.

    Raises
    ------
    ValueError
        If the variable is no whole number above 0.
    """
    text = environ.get(LIMIT_VARIABLE) or "300_000_000"
    try:
        limit = int(text)
    except ValueError:
        limit = 0
    if limit < 1:
        raise ValueError(f"{LIMIT_VARIABLE} must be a whole number above 0, got {text!r}")
    return limit


# Beyond the photographs of any telephone and most panoramas. So many take 2 to 5 GB of memory.
MAX_PIXELS = read_limit(os.environ)


def open_picture(data: bytes | BinaryIO, name: Path | str) -> Image.Image:
    """Open a picture as `PIL.Image.open` does, but with the limit of this module alone.

    PIL's own, which is for the whole process, would warn of, or refuse, photographs of today.

    Parameters
    ----------
    data
        The bytes of its file, or the file, open for reading at its start.
    name
        Of the file, for errors.

    Raises
    ------
    ImageError
        If it is none of the formats, or has more pixels than `MAX_PIXELS`.
    """
    Image.init()
    file = BytesIO(data) if isinstance(data, bytes) else data
    start = file.read(32)
    for kind in FORMATS:
        factory, accept = Image.OPEN.get(kind, (None, None))
        if factory is not None and (accept is None or accept(start[:16]) is True):
            file.seek(0)
            try:
                return _check_size(factory(file, ""), name)
            except (SyntaxError, IndexError, TypeError, struct.error):
                pass  # so do plugins refuse what is not theirs
    if start[4:8] == b"ftyp" and has_heif():
        import pillow_heif  # late: an extra

        if pillow_heif.is_supported(start):
            file.seek(0)
            return _check_size(pillow_heif.HeifImageFile(file, ""), name)
    raise ImageError(name, f"not an image (known: {', '.join(FORMATS)})")


def _check_size(image: Image.Image, name: Path | str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height} pixels"
        reason = f"too large: {size} are more than {MAX_PIXELS:,} in all ({LIMIT_VARIABLE})"
        raise ImageError(name, reason)
    return image
