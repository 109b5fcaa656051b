"""Region encodings: how a masked part of an image becomes a vector.

Most show CLIP an image in which the region stands out, one forward pass a region; the last
one pools the patch vectors of a single pass over the whole image. Every image is a square,
so that CLIP's preprocessing, which cuts out the middle square, cuts nothing off.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from regionlab.data.masks import mask_to_box
from regionlab.models.encoder import MAX_ASPECT, NO_DIRECTION, Encoder
from regionlab.models.segmenter import erase_background
from regionlab.models.spaces import Vectors, with_space
from regionlab.regions.patch_tokens import CLIP_MEAN, encode_region_tokens, find_normalization
from regionlab.util.errors import InputError, name_image, named_memory_error

DEFAULT_ENCODING = "crop_erase"

Color = tuple[int, int, int]
BLACK, RED = (0, 0, 0), (255, 0, 0)
MEAN_COLOR = tuple(round(255 * c) for c in CLIP_MEAN)  # close to zero once normalised

CONTEXT = 1.5  # side of crop_context, in longer sides of the region's box
BLUR = 0.26  # standard deviation, in longer sides of the image: FGVP's 100 of 384 pixels
LINE = 0.01  # width of the red line, in longer sides of the image


@dataclass(frozen=True)
class RegionEncoding:
    """A way to turn regions into vectors, a name in `REGION_ENCODINGS`.

    `summary` says what it does, `source` where it was proposed, `passes` its cost in forward
    passes of CLIP's image tower; `is_image` is whether CLIP sees an image of each region.
    """

    name: str
    summary: str
    source: str
    passes: ClassVar[str] = "one per region"
    is_image: ClassVar[bool] = False

    def encode(
        self, encoder: Encoder, image: np.ndarray, masks: Iterable[np.ndarray], *, batch_size: int
    ) -> np.ndarray:
        """Return (r, d) float32 unit vectors, NaN where the model gives no direction."""
        raise NotImplementedError

    def render(self, image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
        """Return the image of a region that CLIP sees; ValueError if there is none."""
        raise ValueError(f"{self.name!r} makes no picture of a region: CLIP sees the whole image")


@dataclass(frozen=True)
class ImageEncoding(RegionEncoding):
    """Shows CLIP an image of each region: `show` makes it of image, mask and mean colour."""

    show: Callable[[np.ndarray, np.ndarray, Color], Image.Image] = field(repr=False)
    is_image: ClassVar[bool] = True

    def encode(
        self, encoder: Encoder, image: np.ndarray, masks: Iterable[np.ndarray], *, batch_size: int
    ) -> np.ndarray:
        """Encode the regions' images batch by batch, holding one mask at a time."""
        color = find_mean_color(encoder)
        pixels = (encoder.preprocess(self.show(image, mask, color)) for mask in masks)
        batches = iter(lambda: list(islice(pixels, batch_size)), [])
        vectors = [encoder.encode_pixels(torch.stack(batch), strict=False) for batch in batches]
        return np.concatenate([np.empty((0, encoder.dim), np.float32), *vectors])

    def render(self, image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
        """Return the image."""
        return self.show(image, mask, mean_color)


class TokenEncoding(RegionEncoding):
    """Pools the patch vectors of a single pass over the whole image."""

    passes: ClassVar[str] = "one per image"

    def encode(
        self, encoder: Encoder, image: np.ndarray, masks: Iterable[np.ndarray], *, batch_size: int
    ) -> np.ndarray:
        """Encode all regions from one pass, whatever the batch size."""
        return encode_region_tokens(encoder, image, masks)


def encode_regions(
    encoder: Encoder,
    image: np.ndarray,
    masks: Iterable[np.ndarray],
    *,
    encoding: str = DEFAULT_ENCODING,
    batch_size: int = 64,
    strict: bool = True,
) -> Vectors:
    """Encode regions of one image.

    Parameters
    ----------
    encoder : The CLIP model.
    image : (H, W, 3) uint8 RGB.
    masks : (H, W) bool each, the image's own size; none is fine. They are taken one by one, so that
        an iterator need not hold more than one of a large image.
    encoding : A name in `REGION_ENCODINGS`.
    batch_size : Images a forward pass.
    strict : False gives NaN in place of a vector that is not finite, or zero, rather than an error.

    Returns
    -------
    Vectors
        (r, d) float32, unit length, in the order of the masks; with their space and encoding.

    Raises
    ------
    FloatingPointError : If the model gives a vector that is not finite, or zero.
    ValueError : If the encoding is not known or not possible with this encoder, `batch_size` is not
        positive, or the image or a mask has no pixels, another dtype or size.
    MemoryError : If the image is too large for the memory there is.
    """
    chosen = find_encoding(encoding)
    _check_image(image)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    masks = _check_masks(image, masks)
    with named_memory_error(name_image(image.shape)):
        vectors = chosen.encode(encoder, image, masks, batch_size=batch_size)
    if strict and not np.isfinite(vectors).all():
        raise FloatingPointError(NO_DIRECTION)
    return with_space(vectors, encoder.space, chosen.name)


def render_region(
    image: np.ndarray, mask: np.ndarray, encoding: str, *, mean_color: Color = MEAN_COLOR
) -> np.ndarray:
    """Return the image of a region that CLIP gets to see, before it is resized.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB.
    mask : (H, W) bool, the image's own size.
    encoding : A name in `REGION_ENCODINGS`, but not "tokens", which has no image of a region.
    mean_color : RGB, see `find_mean_color`.

    Returns
    -------
    np.ndarray
        (side, side, 3) uint8 RGB.

    Raises
    ------
    ValueError : If the encoding is not known or shows no image, or the image or the mask has no
        pixels, another dtype or size.
    """
    chosen = find_encoding(encoding)
    _check_image(image)
    (mask,) = _check_masks(image, [mask])
    return np.asarray(chosen.render(image, mask, mean_color))


def find_encoding(name: str) -> RegionEncoding:
    """Return the region encoding of a name.

    Raises
    ------
    ValueError : If there is none, with the known names.
    """
    if name not in REGION_ENCODINGS:
        raise InputError(f"unknown region encoding {name!r}; known: {', '.join(REGION_ENCODINGS)}")
    return REGION_ENCODINGS[name]


def find_mean_color(encoder: Encoder) -> Color:
    """Return the RGB colour in [0, 255] that the encoder's preprocessing takes to about zero."""
    return tuple(round(255 * c) for c in find_normalization(encoder)[0])


def _check_image(image: np.ndarray) -> None:
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
        raise ValueError(f"the image must be (H, W, 3) uint8 RGB with pixels, got {shape} {dtype}")
    if max(shape[:2]) > MAX_ASPECT * min(shape[:2]):
        raise ValueError(f"the image is too narrow: {shape[1]} x {shape[0]}")


def _check_masks(image: np.ndarray, masks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield masks, each once it is known to be one of the image."""
    for number, mask in enumerate(masks):
        dtype = getattr(mask, "dtype", type(mask).__name__)
        if dtype != np.bool_:
            raise ValueError(f"mask {number} is {dtype}, not bool")
        if mask.shape != image.shape[:2]:
            size = image.shape[:2]
            raise ValueError(f"mask {number} has {mask.shape} pixels, the image {size}")
        if not mask.any():
            raise ValueError(f"mask {number} has no pixels inside")
        yield mask


# Images ---------------------------------------------------------------------------------


def _erase(image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
    return _pad_square(erase_background(image, mask, fill=BLACK), BLACK)


def _erase_to_mean(image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
    return _pad_square(erase_background(image, mask, fill=mean_color), mean_color)


def _crop(image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
    x0, y0, x1, y1 = mask_to_box(mask).astype(int)
    return _pad_square(image[y0:y1, x0:x1], mean_color)


def _crop_context(image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
    x0, y0, x1, y1 = mask_to_box(mask).astype(int)
    side = round(CONTEXT * max(x1 - x0, y1 - y0))
    return _cut_square(image, (x0 + x1 - side) // 2, (y0 + y1 - side) // 2, side, mean_color)


def _crop_erased(image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
    x0, y0, x1, y1 = mask_to_box(mask).astype(int)
    part = erase_background(image[y0:y1, x0:x1], mask[y0:y1, x0:x1], fill=mean_color)
    return _pad_square(part, mean_color)


def _blur_around(image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
    blur = ImageFilter.GaussianBlur(BLUR * max(mask.shape))
    around = np.asarray(Image.fromarray(image).filter(blur))
    return _pad_square(np.where(mask[..., None], image, around), mean_color)


def _circle_in_red(image: np.ndarray, mask: np.ndarray, mean_color: Color) -> Image.Image:
    line = max(1, round(LINE * max(mask.shape)))
    x0, y0, x1, y1 = mask_to_box(mask)
    picture = Image.fromarray(image)
    # PIL counts the last pixel in, so this leaves the whole box inside the line.
    ellipse = (x0 - line, y0 - line, x1 + line - 1, y1 + line - 1)
    ImageDraw.Draw(picture).ellipse(ellipse, outline=RED, width=line)
    return _pad_square(np.asarray(picture), mean_color)


def _pad_square(image: np.ndarray, fill: Color) -> Image.Image:
    """Put the image in the middle of a square as large as its longer side."""
    height, width = image.shape[:2]
    side = max(height, width)
    return _cut_square(image, (width - side) // 2, (height - side) // 2, side, fill)


def _cut_square(image: np.ndarray, left: int, top: int, side: int, fill: Color) -> Image.Image:
    """Cut a square out of the image; `fill` is where it reaches beyond the border."""
    square = Image.new("RGB", (side, side), fill)
    square.paste(Image.fromarray(image), (-int(left), -int(top)))
    return square


_ALL = (
    ImageEncoding(
        "erase",
        "the whole image, black outside of the mask; on a square image exactly I * M",
        "S0, equation 3",
        _erase,
    ),
    ImageEncoding(
        "erase_mean",
        "the whole image, CLIP's mean colour outside of the mask",
        "S0, equation 3, with the fill of OVSeg (Liang et al. 2023)",
        _erase_to_mean,
    ),
    ImageEncoding(
        "crop",
        "the tight box, padded to a square with the mean colour",
        "the usual baseline, since R-CNN (Girshick et al. 2014)",
        _crop,
    ),
    ImageEncoding(
        "crop_context",
        f"a square of {CONTEXT} times the box's longer side, with what is around",
        "R-CNN (Girshick et al. 2014), appendix A: context padding",
        _crop_context,
    ),
    ImageEncoding(
        "crop_erase",
        "the tight box as a square, mean colour outside of the mask",
        "SAM-with-CLIP, with the fill of OVSeg (Liang et al. 2023)",
        _crop_erased,
    ),
    ImageEncoding(
        "blur",
        "the whole image, blurred outside of the mask",
        "FGVP (Yang et al. 2023), after ReCLIP (Subramanian et al. 2022)",
        _blur_around,
    ),
    ImageEncoding(
        "red_circle",
        "the whole image with a red ellipse around the region's box",
        "Shtedritski et al. 2023",
        _circle_in_red,
    ),
    TokenEncoding(
        "tokens",
        "the mean of the patch vectors under the mask, all regions from one pass",
        "MaskCLIP (Zhou et al. 2022), pooled over the mask",
    ),
)
REGION_ENCODINGS = {encoding.name: encoding for encoding in _ALL}
