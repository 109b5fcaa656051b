"""Masks as COCO writes them: polygons and run-length encodings (RLE), checked both ways.

A compressed RLE is `{"size": [height, width], "counts": str}`: the lengths of alternating
runs of outside and inside pixels, column by column, in COCO's text code.
"""

from collections.abc import Iterator

import numpy as np
from pycocotools import mask as coco_mask


def mask_to_rle(mask: np.ndarray) -> dict:
    """Encode an (H, W) bool mask as compressed RLE.

    Raises
    ------
    ValueError
        If `mask` is no (H, W) bool array.
    """
    if mask.ndim != 2 or mask.dtype != bool:
        raise ValueError(f"mask must be (H, W) bool, not {mask.shape} {mask.dtype}")
    return _as_text(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def rle_to_mask(rle: dict) -> np.ndarray:
    """Decode a compressed RLE into an (H, W) bool mask.

    Raises
    ------
    ValueError
        If the runs do not fill the size exactly.
    """
    # Not by pycocotools: its decoder leaves pixels that short runs do not reach to chance.
    height, width = rle["size"]
    runs = list(_iterate_runs(rle["counts"]))
    _check_runs(runs, height, width)
    inside = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def segmentation_to_rle(segmentation: list | dict | None, height: int, width: int) -> dict:
    """Turn a COCO segmentation into compressed RLE.

    Parameters
    ----------
    segmentation
        Polygons `[[x, y, x, y, ...], ...]` in pixels, of which the union counts (those of
        fewer than three points enclose nothing and are left out); or RLE
        `{"size": [height, width], "counts": ...}` with a list (uncompressed) or a string.
    height, width
        Size of the image in pixels.

    Raises
    ------
    ValueError
        If there is no segmentation, or it is none of these, or of another size.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a mask needs the image's size, not {height} x {width}")
    if not segmentation:
        raise ValueError("no segmentation")
    if not isinstance(segmentation, dict):
        polygons = _check_polygons(segmentation)
        return _as_text(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))

    counts = segmentation.get("counts")
    if segmentation.get("size") != [height, width]:
        raise ValueError(f"RLE size {segmentation.get('size')} is not [{height}, {width}]")
    if isinstance(counts, list):
        _check_runs(counts, height, width)
        return _as_text(coco_mask.frPyObjects(segmentation, height, width))
    if not isinstance(counts, str | bytes):
        raise ValueError(f"RLE counts must be a list or a string, not {counts!r}")
    rle = _as_text(segmentation)
    _check_runs(list(_iterate_runs(rle["counts"])), height, width)
    return rle


def _as_text(rle: dict) -> dict:
    counts = rle["counts"]
    text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def _check_polygons(polygons: list) -> list[list[float]]:
    try:
        arrays = [np.asarray(polygon, dtype=float) for polygon in polygons]
    except (TypeError, ValueError) as e:
        raise ValueError(f"a polygon is not a list of numbers: {str(polygons)[:80]}") from e
    for array in arrays:
        if array.ndim != 1 or array.size % 2 or not np.isfinite(array).all():
            raise ValueError(f"a polygon must be [x, y, x, y, ...], not {str(polygons)[:80]}")
    closed = [array.tolist() for array in arrays if array.size >= 6]
    if not closed:
        raise ValueError(f"no polygon has three points: {str(polygons)[:80]}")
    return closed


def _check_runs(runs: list[int], height: int, width: int) -> None:
    pixels = 0
    for run in runs:
        if not isinstance(run, int) or run < 0:
            raise ValueError(f"an RLE run must be a whole number of pixels, not {run!r}")
        pixels += run
    if pixels != height * width:
        raise ValueError(f"RLE runs cover {pixels} pixels, not {height} x {width}")


def _iterate_runs(counts: str) -> Iterator[int]:
    """Yield the runs in COCO's text code: 5 bits a letter, differences from the third on."""
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(f"RLE counts hold {letter!r}, which is no letter of the code")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:  # more letters follow
            continue
        if code & 0x10:  # negative
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        yield value
        value = shift = 0
    if shift:
        raise ValueError("RLE counts end in the middle of a number")


def mask_to_box(mask: np.ndarray) -> np.ndarray:
    """Return the tight box of a mask.

    Parameters
    ----------
    mask
        (H, W) bool with at least one pixel inside.

    Returns
    -------
    np.ndarray
        (4,) float64, XYXY in pixels, right and bottom exclusive.

    Raises
    ------
    ValueError
        If the mask has no pixels.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise ValueError("the mask has no pixels, so it has no box")
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)
