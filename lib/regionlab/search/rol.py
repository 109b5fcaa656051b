"""Where regions lie: the IoU of a query's parts and the regions of candidates, by box or mask.

Of two different images, in a common frame: see `ranking.Rol`.
"""

import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from regionlab.data.masks import accumulate_within, decode_runs, rle_to_mask
from regionlab.index.index import Index
from regionlab.search.query import Part, Query
from regionlab.search.scoring import Rol, best_of_each, spread

CHUNK = 64  # masks packed at a time: their runs should stay in the processor's cache
KEPT_BYTES = 2**30  # packed masks of an index that are kept in memory, at most


def pack_mask(mask: np.ndarray, grid: int) -> np.ndarray:
    """Pack an (H, W) bool mask into (grid * grid / 64,) uint64; `grid` is a multiple of 8."""
    height, width = mask.shape
    cells = mask[np.ix_(_centres(height, grid), _centres(width, grid))].T.copy()
    if not cells.any() and mask.any():
        inside = np.flatnonzero(mask.T)
        x, y = divmod(int(inside[len(inside) // 2]), height)
        cells[x * grid // width, y * grid // height] = True
    return np.packbits(cells).view(np.uint64)


def pack_rles(
    counts: Sequence[str], heights: np.ndarray, widths: np.ndarray, grid: int
) -> np.ndarray:
    """Pack masks without drawing them: their runs are shortened to those of the grid.

    Parameters
    ----------
    counts
        (r,) COCO's compressed run-length encodings.
    heights, widths
        (r,) int, pixels of the image of each.
    grid
        Cells along each side, a multiple of 8.

    Returns
    -------
    np.ndarray
        (r, grid * grid / 64) uint64, the same as `pack_mask` of the decoded masks.

    Raises
    ------
    ValueError
        If the runs of a mask do not fill its size exactly, or are no encoding.
    """
    packed = np.zeros((len(counts), grid * grid // 64), np.uint64)
    wide = np.flatnonzero(widths >= grid)
    for start in range(0, len(wide), CHUNK):
        rows = wide[start : start + CHUNK]
        part = [counts[i] for i in rows]
        packed[rows] = _pack_chunk(part, heights[rows], widths[rows], grid)
    # The others are drawn, and those that hold no centre.
    for i in np.flatnonzero(~packed.any(axis=1)):
        rle = {"size": [int(heights[i]), int(widths[i])], "counts": counts[i]}
        packed[i] = pack_mask(rle_to_mask(rle), grid)
    return packed


def packed_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of (m, w) and (r, w) packed masks, (m, r) float64.

    0 where neither has a cell inside.
    """
    shared = np.stack([_count_cells(one & b) for one in a])
    union = _count_cells(a)[:, None] + _count_cells(b) - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


class PackedMasks:
    """The masks of an index's regions, each packed when it is first asked for, then kept.

    Kept are `limit` bytes at most, and 4 more a region of the index; once these are full, all
    is forgotten and packed anew as needed. A mask takes grid * grid / 8 bytes: those of a
    million regions 128 MB on a grid of 32. Several threads may ask at once.

    Parameters
    ----------
    index
        With regions.
    grid
        Cells along each side, a multiple of 8.
    limit
        In bytes.
    """

    def __init__(self, index: Index, grid: int, *, limit: int = KEPT_BYTES):
        index.check_regions()
        words = grid * grid // 64
        # Not the index itself, which the memory of `keep_packed` must not keep alive.
        self._counts, self._rows = index.regions["rle"], index.regions["row"].to_numpy()
        self._sides = index.images[["height", "width"]].to_numpy(np.int64)
        self._capacity = max(min(len(self._rows), limit // (8 * words)), 1)
        self._kept = np.zeros((1 + self._capacity, words), np.uint64)
        self._place = np.full(len(self._rows) + 1, -1, np.int32)
        self._place[-1] = 0  # where row -1 finds the empty mask
        self._used = 1
        self._grid, self._lock = grid, threading.Lock()

    def get(self, regions: np.ndarray) -> np.ndarray:
        """Return the packed masks of (r,) rows of `index.regions`, (r, w) uint64.

        Row -1 stands for no region, and has an empty mask.
        """
        found = np.empty((len(regions), self._kept.shape[1]), np.uint64)
        with self._lock:
            for start in range(0, len(regions), self._capacity):
                part = slice(start, start + self._capacity)
                self._keep(regions[part])
                np.take(self._kept, self._place[regions[part]], axis=0, out=found[part])
        return found

    def _keep(self, regions: np.ndarray) -> None:
        missing = regions[self._place[regions] < 0]
        if not len(missing):
            return
        missing = np.unique(missing)
        if self._used + len(missing) > len(self._kept):
            self._place[:-1], self._used = -1, 1
            missing = np.unique(regions[regions >= 0])
        places = np.arange(self._used, self._used + len(missing))
        heights, widths = self._sides[self._rows[missing]].T
        counts = self._counts.iloc[missing].tolist()
        self._kept[places] = pack_rles(counts, heights, widths, self._grid)
        self._place[missing] = places
        self._used += len(missing)


def keep_packed(index: Index, grid: int) -> PackedMasks:
    """Return the packed masks of an index, the same ones as long as the index is in use."""
    grids = _KEPT.setdefault(index, {})
    if grid not in grids:
        grids[grid] = PackedMasks(index, grid)
    return grids[grid]


_KEPT: WeakKeyDictionary[Index, dict[int, PackedMasks]] = WeakKeyDictionary()


def _count_cells(words: np.ndarray) -> np.ndarray:
    return np.einsum("rw->r", np.bitwise_count(words), dtype=np.int64)


def _pack_chunk(
    counts: Sequence[str], heights: np.ndarray, widths: np.ndarray, grid: int
) -> np.ndarray:
    runs, lengths = decode_runs(counts)
    pixels = accumulate_within(runs, lengths)  # before the end of each run
    _check_filled(pixels, lengths, heights, widths)
    cells = _cells_before(pixels, np.repeat(heights, lengths), np.repeat(widths, lengths), grid)
    firsts = np.cumsum(lengths) - lengths
    shorter = np.diff(cells, prepend=0)
    shorter[firsts] = cells[firsts]
    inside = (np.arange(len(runs)) - np.repeat(firsts, lengths)) % 2 == 1
    bits = np.repeat(inside, shorter).reshape(len(counts), -1)
    return np.packbits(bits, axis=1).view(np.uint64)


def _check_filled(
    pixels: np.ndarray, lengths: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> None:
    filled = np.append(0, pixels)[np.where(lengths > 0, np.cumsum(lengths), 0)]
    wrong = filled != heights * widths
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(f"RLE runs cover {filled[i]} pixels, not {heights[i]} x {widths[i]}")


def _cells_before(
    pixels: np.ndarray, heights: np.ndarray, widths: np.ndarray, grid: int
) -> np.ndarray:
    """Return how many cells have their centre in the first so many pixels of an image.

    Only where no column of pixels holds the centres of two columns of cells.
    """
    x, y = np.divmod(pixels, heights)
    before = _centres_before(x, widths, grid)
    has_centre = _centres_before(x + 1, widths, grid) > before
    return before * grid + has_centre * _centres_before(y, heights, grid)


def _centres(side: int, grid: int) -> np.ndarray:
    """Return the pixel in which each cell's centre lies, (grid,), along a side in pixels."""
    return (2 * np.arange(grid) + 1) * side // (2 * grid)


def _centres_before(pixel: np.ndarray, side: np.ndarray, grid: int) -> np.ndarray:
    """Return how many centres lie in the pixels before one: the inverse of `_centres`."""
    return (2 * grid * pixel + side - 1) // (2 * side)


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
