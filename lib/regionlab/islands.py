"""Small islands of a mask, which SAM leaves here and there, are taken away."""

import numpy as np
from scipy.ndimage import label

# Of the mask's pixels. Chosen on Toybox val: one click 0.858 instead of 0.855 mean IoU, a box as
# before. More would take away parts of things that are partly hidden.
ISLAND_SHARE = 0.1
PIXELS = 2**24  # counted at a time


def drop_islands(mask: np.ndarray, share: float = ISLAND_SHARE) -> np.ndarray:
    """Return a mask without the connected parts that hold less than a share of its pixels.

    The counterpart of `min_mask_region_area` in `SamAutomaticMaskGenerator`, but relative to
    the mask, so that it means the same in a picture of any size.

    Parameters
    ----------
    mask
        (H, W) bool.
    share
        In [0, 1]; 0 keeps all. The largest part stays in any case.

    Returns
    -------
    np.ndarray
        (H, W) bool.

    Raises
    ------
    ValueError
        If `share` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of an island must be in [0, 1], not {share}")
    parts, count = label(mask, structure=np.ones((3, 3)))
    if count < 2 or share == 0:
        return mask
    # Row by row in blocks: for all at once, bincount makes 8 bytes of each pixel.
    blocks = np.array_split(parts, 1 + parts.size // PIXELS)
    sizes = sum(np.bincount(block.ravel(), minlength=count + 1) for block in blocks)
    sizes[0] = 0
    kept = sizes >= share * sizes.sum()
    kept[sizes.argmax()] = True
    return kept[parts] & mask
