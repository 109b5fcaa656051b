"""Where regions lie: the IoU of a query's parts and the regions of candidates, by box or mask.

Of two different images, in a common frame: see `ranking.Rol`.
"""

import numpy as np

from regionlab.index import Index
from regionlab.packed_masks import keep_packed, pack_rles, packed_iou
from regionlab.query import Part, Query
from regionlab.ranking import Rol, best_of_each, spread


class Boxes:
    """Regions as boxes, (r, 4) float64 XYXY: shares of an image's sides, or pixels."""

    def __init__(self, index: Index, frame: str):
        self._index, self._in_pixels = index, frame == "pixels"
        self._sides = index.images[["width", "height"]].to_numpy(np.float64)

    def of_parts(self, parts: list[Part]) -> np.ndarray:
        """Return the boxes of (m,) parts of a query."""
        boxes = np.stack([part.box for part in parts])
        if self._in_pixels:
            boxes = boxes * np.tile([part.size[::-1] for part in parts], 2)
        return boxes

    def of_regions(self, regions: np.ndarray) -> np.ndarray:
        """Return the boxes of (r,) rows of `index.regions`; that of -1 has no area."""
        table, held = self._index.regions, regions >= 0
        boxes = np.zeros((len(regions), 4))
        for i, name in enumerate(("x0", "y0", "x1", "y1")):
            boxes[held, i] = table[name].to_numpy()[regions[held]]
        if not self._in_pixels:
            boxes[held] /= np.tile(self._sides[table["row"].to_numpy()[regions[held]]], 2)
        return boxes

    def of_images(self, rows: np.ndarray) -> np.ndarray:
        """Return boxes around the whole of (c,) images."""
        corners = self._sides[rows] if self._in_pixels else np.ones((len(rows), 2))
        return np.hstack([np.zeros_like(corners), corners])

    def iou(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the overlap of (m, 4) and (r, 4) boxes, see `box_iou`."""
        return box_iou(a, b)


class Masks:
    """Regions as masks on a grid, (r, words) uint64, see `packed_masks`."""

    def __init__(self, index: Index, grid: int):
        self._index, self._grid = index, grid

    def of_parts(self, parts: list[Part]) -> np.ndarray:
        """Return the masks of (m,) parts of a query."""
        heights, widths = np.array([part.rle["size"] for part in parts]).T
        return pack_rles([part.rle["counts"] for part in parts], heights, widths, self._grid)

    def of_regions(self, regions: np.ndarray) -> np.ndarray:
        """Return the masks of (r,) rows of `index.regions`; that of -1 is empty."""
        return keep_packed(self._index, self._grid).get(regions)

    def of_images(self, rows: np.ndarray) -> np.ndarray:
        """Return masks of the whole of (c,) images."""
        return np.full((len(rows), self._grid**2 // 64), np.iinfo(np.uint64).max)

    def iou(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the overlap of (m, words) and (r, words) masks, see `packed_iou`."""
        return packed_iou(a, b)


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
        overlap = shapes.iou(asked, shapes.of_images(rows))
    elif rol.region == "overlap":
        every, local = spread(offsets, rows)
        overlap = best_of_each(shapes.iou(asked, shapes.of_regions(every)), local, 0.0)
    else:
        matched = [shapes.of_regions(regions[i]) for i in placed]
        overlap = np.concatenate([shapes.iou(asked[[j]], b) for j, b in enumerate(matched)])
    weights = query.weights[placed]
    return weights @ overlap / weights.sum()


def find_placed(query: Query) -> list[int]:
    """Return which parts are wanted and have a place."""
    return [i for i, part in enumerate(query.parts) if part.weight > 0 and part.box is not None]


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of (m, 4) and (r, 4) XYXY boxes, (m, r) float64.

    Both in the same frame; 0 where neither box has an area.
    """
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(axis=-1)
    union = _area(a) + _area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
