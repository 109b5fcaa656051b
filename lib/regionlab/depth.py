"""Pixel values of more than 8 bits become 8 bits, whatever part of their range is used."""

import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

# Scanners and cameras put so many bits into 16.
DEPTHS = (8, 10, 12, 14, 16)
BITS_PER_SAMPLE, SAMPLE_FORMAT, SIGNED = 258, 339, 2  # tags of TIFF, and a value of the second
OTHER_END = {
    "16B": "16L",
    "16L": "16B",
    "16N": "16B" if sys.byteorder == "little" else "16L",
}


class RangeError(ValueError):
    """Pixel values that have no agreed range; the text says what to do."""


def find_depth(highest: int) -> int:
    """Return the smallest of 8, 10, 12, 14 and 16 bits that hold a value.

    Raises
    ------
    RangeError
        If 16 are too few.
    """
    for bits in DEPTHS:
        if highest < 1 << bits:
            return bits
    raise RangeError("integer pixels over 16 bits: save as 8 or 16 bits a channel")


def load_8_bits(image: Image.Image, reopen: Callable[[], Image.Image]) -> Image.Image:
    """Decode an opened picture, and bring it to 8 bits a channel if it has 16.

    A picture that says of how many bits it is keeps the upper 8 of them. 16 bits are kept for
    whatever fits in; so if all values of a picture would fit in 8, 10, 12 or 14 bits, it is taken
    as one of that many bits, else of 16.

    Parameters
    ----------
    image
        As PIL opens it, not yet decoded.
    reopen
        Opens the same picture again: PIL keeps only the upper half of 16-bit colours, and a
        second reading has to bring the lower.

    Raises
    ------
    RangeError
        If pixels are floats, negative, or integers over 16 bits.
    """
    declared, is_deep = _declared_bits(image), bool(_other_halves(image))
    is_gray_alpha = image.mode == "RGBA" and [part.args for part in getattr(image, "tile", ())] == [
        "LA;16B"
    ]
    image.load()
    if image.mode == "F":
        raise RangeError("floating-point pixels: save as 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        return _narrow_gray(image, declared)
    if is_deep and declared is None:
        return _narrow_colours(image, reopen)
    if is_gray_alpha:
        return _narrow_gray_alpha(image, reopen)
    return image


def _narrow_gray(image: Image.Image, declared: int | None) -> Image.Image:
    values = np.asarray(image)  # PIL's own conversion clips at 255
    if values.min() < 0:
        raise RangeError("negative integer pixels, not over 16 bits: save as 8 or 16 bits")
    needed = find_depth(values.max())
    shift = (declared or needed) - 8
    return Image.fromarray(np.minimum(values >> shift, 255).astype(np.uint8))


def _narrow_colours(image: Image.Image, reopen: Callable[[], Image.Image]) -> Image.Image:
    highest = max(high for _, high in image.getextrema()[:3])
    if find_depth(highest << 8 | 255) == 16:
        return image  # its upper halves are what is wanted
    other = reopen()
    other.tile = _other_halves(other)
    pixels = np.array(image)
    values = pixels[..., :3].astype(np.uint16) << 8 | np.asarray(other)[..., :3]
    pixels[..., :3] = values >> (find_depth(values.max()) - 8)
    return Image.fromarray(pixels)


def _narrow_gray_alpha(image: Image.Image, reopen: Callable[[], Image.Image]) -> Image.Image:
    other = reopen()
    # Four bytes a pixel: the two halves of gray, and those of alpha.
    other.tile = [part._replace(args="RGBA") for part in other.tile]
    halves = np.asarray(other).astype(np.uint16)
    values = halves[..., 0] << 8 | halves[..., 1]
    pixels = np.array(image)
    pixels[..., :3] = (values >> (find_depth(values.max()) - 8))[..., None]
    return Image.fromarray(pixels)


def _declared_bits(image: Image.Image) -> int | None:
    """Return of how many bits, below 16 or stretched to 16, a picture says that it is."""
    if image.format == "PPM":
        return 16  # PIL has stretched it by the largest value that the header names
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0] - (tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED)
    return bits if 8 < bits < 16 else None


def _other_halves(image: Image.Image) -> list:
    """Return the parts of a picture of 16-bit colours, to be read the wrong way round.

    Taken for the other byte order, the lower half of a value is what PIL keeps. Empty for any
    other picture.
    """
    parts = []
    for part in getattr(image, "tile", ()):
        args = part.args if isinstance(part.args, tuple) else (part.args,)
        colours, _, order = str(args[0]).partition(";")
        if colours not in ("RGB", "RGBA") or order not in OTHER_END:
            return []
        swapped = f"{colours};{OTHER_END[order]}"
        whole = (swapped, *args[1:]) if isinstance(part.args, tuple) else swapped
        parts.append(part._replace(args=whole))
    return parts
