"""Where regions lie: the IoU of a query's parts and the regions of candidates, by box or mask.

Of two different images, in a common frame: see `ranking.Rol`.
"""

import numpy as np

from regionlab.index import Index
from regionlab.packed_masks import keep_packed, pack_rles, packed_iou
from regionlab.query import Part, Query
from regionlab.ranking import Rol, best_of_each, spread

WORDS = 2**15  # of masks laid over those of a query at a time: they should stay in the cache


class Boxes:
    """Regions as boxes, (r, 4) float64 XYXY: shares of an image's sides, or pixels."""

    def __init__(self, index: Index, frame: str):
        self._regions, self._in_pixels = index.regions, frame == "pixels"
        self._sides = index.images[["width", "height"]].to_numpy(np.float64)

    def of_parts(self, parts: list[Part]) -> np.ndarray:
        """Return the boxes of (m,) parts of a query, (m, 4)."""
        boxes = np.stack([part.box for part in parts])
        if self._in_pixels:
            boxes = boxes * np.tile([part.size[::-1] for part in parts], 2)
        return boxes

    def overlap_regions(self, asked: np.ndarray, regions: np.ndarray) -> np.ndarray:
        """Return the IoU of m boxes and (r,) rows of `index.regions`, (m, r); 0 for row -1."""
        held = regions >= 0
        rows, boxes = regions[held], np.zeros((len(regions), 4))
        corners = [self._regions[name].to_numpy()[rows] for name in ("x0", "y0", "x1", "y1")]
        boxes[held] = np.stack(corners, axis=1)
        if not self._in_pixels:
            boxes[held] /= np.tile(self._sides[self._regions["row"].to_numpy()[rows]], 2)
        return box_iou(asked, boxes)

    def overlap_images(self, asked: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the IoU of m boxes and the whole of (c,) images, (m, c)."""
        corners = self._sides[rows] if self._in_pixels else np.ones((len(rows), 2))
        return box_iou(asked, np.hstack([np.zeros_like(corners), corners]))


class Masks:
    """Regions as masks on a grid, (r, words) uint64, see `packed_masks`."""

    def __init__(self, index: Index, grid: int):
        self._index, self._grid = index, grid

    def of_parts(self, parts: list[Part]) -> np.ndarray:
        """Return the masks of (m,) parts of a query, (m, words)."""
        heights, widths = np.array([part.rle["size"] for part in parts]).T
        return pack_rles([part.rle["counts"] for part in parts], heights, widths, self._grid)

    def overlap_regions(self, asked: np.ndarray, regions: np.ndarray) -> np.ndarray:
        """Return the IoU of m masks and (r,) rows of `index.regions`, (m, r); 0 for row -1."""
        masks = keep_packed(self._index, self._grid)
        overlap = np.empty((len(asked), len(regions)))
        step = WORDS // asked.shape[1]
        for start in range(0, len(regions), step):
            part = slice(start, start + step)
            overlap[:, part] = packed_iou(asked, masks.get(regions[part]))
        return overlap

    def overlap_images(self, asked: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the IoU of m masks and the whole of (c,) images, (m, c)."""
        whole = np.full((1, asked.shape[1]), np.iinfo(np.uint64).max)
        return np.repeat(packed_iou(asked, whole), len(rows), axis=1)


Shapes = Boxes | Masks


def load_shapes(index: Index, rol: Rol) -> Shapes:
    """Return the shapes that the settings ask for."""
    return Masks(index, rol.grid) if rol.overlap == "mask" else Boxes(index, rol.frame)


def find_overlaps(
    shapes: Shapes,
    query: Query,
    rol: Rol,
    rows: np.ndarray,
    regions: np.ndarray,
    offsets: np.ndarray | None,
) -> np.ndarray:
    """Return IoU(R_Q, R_I) of candidates, averaged by weight over the wanted parts of a place.

    Parameters
    ----------
    rows
        (c,) int, images of the index.
    regions
        (m, c) int, the region matched with each part, for "similar".
    offsets
        (n + 1,) where each image's regions begin, for "overlap".

    Returns
    -------
    np.ndarray
        (c,) float64.
    """
    placed = find_placed(query)
    asked = shapes.of_parts([query.parts[i] for i in placed])
    if rol.region == "whole":
        overlap = shapes.overlap_images(asked, rows)
    elif rol.region == "overlap":
        every, local = spread(offsets, rows)
        overlap = best_of_each(shapes.overlap_regions(asked, every), local, 0.0)
    else:
        each = [shapes.overlap_regions(asked[[j]], regions[i]) for j, i in enumerate(placed)]
        overlap = np.concatenate(each)
    weights = query.weights[placed]
    return weights @ overlap / weights.sum()


def find_placed(query: Query) -> list[int]:
    """Return which parts are wanted and have a place."""
    return [i for i, part in enumerate(query.parts) if part.weight > 0 and part.box is not None]


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of (m, 4) and (r, 4) XYXY boxes, (m, r) float64.

    Both in the same frame; 0 where neither box has an area.
    """
    a, b = np.asarray(a, np.float64).T[..., None], np.asarray(b, np.float64).T
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    shared = width.clip(min=0) * height.clip(min=0)
    union = _area(a) + _area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(corners: np.ndarray) -> np.ndarray:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])
