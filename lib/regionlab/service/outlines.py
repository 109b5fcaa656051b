"""Masks as outlines that a browser draws over a picture."""

import numpy as np
from contourpy import contour_generator

OUTLINE_SIDE = 256  # steps along the longer side of a picture that an outline follows


def mask_to_path(mask: np.ndarray, *, side: int = OUTLINE_SIDE) -> str:
    """Return the outline of a mask as an SVG path in pixels of its image, holes included.

    Parameters
    ----------
    mask
        (H, W) bool.
    side
        A larger mask is followed in coarser steps, so that its longer side has no more.

    Returns
    -------
    str
        Such as "M10 20L10 30L20 30Z"; empty for an empty mask.
    """
    step = -(-max(mask.shape) // side)
    middles = mask[step // 2 :: step, step // 2 :: step]
    padded = np.pad(middles, 1).astype(np.float32)  # so that outlines close at the edge
    lines = contour_generator(z=padded).lines(0.5)
    return "".join(_line_to_path((_drop_straight(line) - 0.5) * step) for line in lines)


def _drop_straight(line: np.ndarray) -> np.ndarray:
    """Leave out the points of a closed line, (n, 2), at which it does not turn."""
    points = line[:-1]  # the first comes again at the end
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return points[turns]


def _line_to_path(points: np.ndarray) -> str:
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) + "Z"
