"""Segmentations in COCO's JSON, checked when they are loaded: nothing is found out in a study."""

import math
from collections.abc import Sequence

from regionlab.datasets.values import BadValue, show, take_size

Size = tuple[int, int]  # width and height of the image in pixels


def read_segmentation(value: object, size: Size | None) -> list | dict | None:
    """Return a segmentation as `rle.segmentation_to_rle` takes it, None where none is given.

    A polygon that is not in a list is put in one, and runs such as 10.0 become whole numbers.
    The text of a compressed RLE is not read here, see `rle_runs.find_broken_counts`.

    Parameters
    ----------
    value
        As the JSON file holds it.
    size
        Of the image it was drawn on; None where this is not known.

    Raises
    ------
    BadValue
        If it is nothing that encloses pixels of an image of this size.
    """
    if value is None or value in ([], {}):
        return None
    if isinstance(value, dict):
        return _read_rle(value, size)
    if not isinstance(value, list):
        raise BadValue(f"segmentation is {show(value)}, neither polygons nor RLE")
    polygons = value if isinstance(value[0], list) else [value]
    for polygon in polygons:
        _check_polygon(polygon, size)
    if max(map(len, polygons)) < 6:
        raise BadValue(f"no polygon of segmentation {show(value)} has three points")
    return polygons


def _check_polygon(polygon: object, size: Size | None) -> None:
    try:
        # Sums are quick, and none of them is finite where a number is not.
        good = isinstance(polygon, list) and len(polygon) % 2 == 0 and math.isfinite(sum(polygon))
    except (TypeError, OverflowError):
        good = False
    if not good:
        raise BadValue(f"segmentation holds {show(polygon)}, not [x, y, x, y, ...]")
    side = max(size or (0, 0))
    # Far outside is no drawing, and would cost COCO's own code its memory.
    if size and polygon and (min(polygon) < -side or max(polygon) > 2 * side):
        raise BadValue(f"segmentation {show(polygon)} lies far outside an image of {_say(size)}")


def _read_rle(rle: dict, size: Size | None) -> dict:
    sides, counts = rle.get("size"), rle.get("counts")
    if not isinstance(sides, list) or len(sides) != 2:
        raise BadValue(f"the RLE's size is {show(sides)}, not [height, width]")
    take_size({"height": sides[0], "width": sides[1]})
    if size and sides != [size[1], size[0]]:
        raise BadValue(f"the RLE's size is {show(sides)}, but the image's is {_say(size)}")
    if isinstance(counts, str):
        return rle
    if not isinstance(counts, list) or not _are_runs(counts):
        raise BadValue(f"the RLE's counts are {show(counts)}, not runs of pixels")
    if sum(counts) != sides[0] * sides[1]:
        raise BadValue(f"the RLE's runs cover {show(sum(counts))} pixels, not {show(sides)}")
    return {"size": [int(side) for side in sides], "counts": [int(run) for run in counts]}


def _are_runs(counts: Sequence) -> bool:
    numbers = set(map(type, counts)) <= {int, float}
    return numbers and all(run >= 0 and run % 1 == 0 for run in counts)


def _say(size: Size) -> str:
    return f"{size[0]} x {size[1]} pixels"
