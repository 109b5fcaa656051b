"""Simulated users: boxes and clicks as a person would make them, drawn from true masks."""

import numpy as np


def jitter_box(
    box: np.ndarray, size: tuple[int, int], rng: np.random.Generator, *, noise: float = 0.1
) -> np.ndarray:
    """Move each side of a box as a hasty hand would.

    The noise is normal, with a deviation of `noise` times the side's length and at most 20
    pixels: what SAM was trained with (Kirillov et al. 2023, appendix A).

    Parameters
    ----------
    box
        (4,) XYXY in pixels.
    size
        Height and width of the image, which the box stays in.

    Returns
    -------
    np.ndarray
        (4,) float64 XYXY, at least one pixel wide and high.
    """
    x0, y0, x1, y1 = box
    deviation = noise * np.array([x1 - x0, y1 - y0] * 2)
    moved = np.array(box, dtype=float) + np.clip(rng.normal(0, deviation), -20, 20)
    limit = np.array([size[1], size[0]], dtype=float)
    low = np.clip(np.minimum(moved[:2], moved[2:]), 0, limit - 1)
    high = np.minimum(np.maximum(np.maximum(moved[:2], moved[2:]), low + 1), limit)
    return np.concatenate([low, high])


def draw_inside_point(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Click on a pixel of the mask, any with the same chance.

    Returns
    -------
    np.ndarray
        (2,) float64 (x, y), the pixel's centre.

    Raises
    ------
    ValueError
        If the mask has no pixels.
    """
    inside = np.flatnonzero(mask)
    if not len(inside):
        raise ValueError("the mask has no pixels to click on")
    y, x = divmod(int(inside[rng.integers(len(inside))]), mask.shape[1])
    return np.array([x + 0.5, y + 0.5])


def draw_correction(
    mask: np.ndarray, found: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, int] | None:
    """Click where a found mask is wrong: 1 on what is missing, 0 on what is too much.

    Parameters
    ----------
    mask, found
        (H, W) bool: what is meant and what the segmenter made of it.

    Returns
    -------
    tuple of np.ndarray and int, or None
        (2,) float64 (x, y) and the label; None where nothing is wrong.
    """
    wrong = mask != found
    if not wrong.any():
        return None
    point = draw_inside_point(wrong, rng)
    return point, int(mask[int(point[1]), int(point[0])])
