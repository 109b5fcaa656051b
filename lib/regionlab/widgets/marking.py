"""Say which part of a picture is meant without changing a pixel of it."""

import numpy as np
from scipy.ndimage import binary_dilation

from regionlab.images import make_thumbnail

LINE = 2  # pixels of each of the two lines
LIGHT, DARK = 255, 0  # without a hue, which would lean people towards it

Outline = np.ndarray  # (H, W) bool mask, or (4,) box XYXY in pixels of its image


def mark_region(image: np.ndarray, outline: Outline | None, side: int) -> np.ndarray:
    """Shrink an image and draw a double line around a part of it, light within dark.

    The lines lie outside of the part, so that all of its pixels are the picture's. Where it
    reaches the picture's edge, a white margin gives them room.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB.
    outline
        What is meant: a mask (H, W) bool, a box (4,) XYXY in pixels, or None for nothing.
    side
        Pixels that the longer side has at most, without the margin.

    Returns
    -------
    marked
        (h, w, 3) uint8 RGB.

    Raises
    ------
    ValueError
        If the outline is neither mask nor box, or a mask is not of its image's size.
    """
    small = make_thumbnail(image, side)
    if outline is None:
        return small
    mask = fit_outline(np.asarray(outline), image.shape[:2], small.shape[:2])
    margin = 2 * LINE
    room = np.pad(mask, margin)
    marked = np.pad(small, ((margin, margin), (margin, margin), (0, 0)), constant_values=LIGHT)
    square = np.ones((3, 3), bool)
    near = binary_dilation(room, square, iterations=LINE)
    marked[binary_dilation(near, square, iterations=LINE) & ~near] = DARK
    marked[near & ~room] = LIGHT
    reaches_edge = mask[[0, -1]].any() or mask[:, [0, -1]].any()
    return marked if reaches_edge else marked[margin:-margin, margin:-margin]


def fit_outline(outline: Outline, size: tuple[int, int], small: tuple[int, int]) -> np.ndarray:
    """Return a mask or box of an image of `size` as a mask of its thumbnail of `small`.

    Parameters
    ----------
    outline
        (H, W) bool, or (4,) XYXY in pixels.
    size, small
        Height and width in pixels.

    Raises
    ------
    ValueError
        If the outline is neither mask nor box, or a mask is not of its image's size.
    """
    height, width = size
    # Image coordinates of the centres of the thumbnail's pixels.
    y = (np.arange(small[0]) + 0.5) * height / small[0]
    x = (np.arange(small[1]) + 0.5) * width / small[1]
    if outline.shape == (4,):
        x0, y0, x1, y1 = outline
        return ((y0 <= y) & (y < y1))[:, None] & ((x0 <= x) & (x < x1))
    if outline.shape != size or outline.dtype != bool:
        raise ValueError(
            f"an outline must be a ({height}, {width}) bool mask like its image, or a (4,) box, "
            f"not {outline.shape} {outline.dtype}"
        )
    return outline[y.astype(int)][:, x.astype(int)]
