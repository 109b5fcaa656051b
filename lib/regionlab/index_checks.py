"""Whether the tables and vectors of an index can be right, and what to do if not."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regionlab.progress import progress
from regionlab.region_files import COLUMNS, name_region
from regionlab.rle import rle_to_mask
from regionlab.simulation import mask_to_box
from regionlab.vector_files import BLOCK

UNIT = 1e-3  # how far from 1 the length of a vector may be
IMAGES, REGIONS = "images.parquet", "regions.parquet"
REBUILD = "Build the index again with fresh=True, then its regions if it had any."
REGIONS_AGAIN = (
    "Find the regions again: add_regions(..., fresh=True); if it does not open, build it."
)


@dataclass(frozen=True)
class Finding:
    """Something about an index that its owner should know.

    Attributes
    ----------
    where
        The file or folder.
    what
        What is wrong with it.
    advice
        What to do.
    harm
        False for a mere note: nothing is known to be wrong.
    """

    where: str
    what: str
    advice: str
    harm: bool = True

    def __str__(self) -> str:
        return f"{'' if self.harm else 'note: '}{self.where}: {self.what}. {self.advice}"


def damage(name: str, what: str) -> Finding:
    """Return the finding of a damaged file of an index."""
    return Finding(name, what, REGIONS_AGAIN if name.startswith("region") else REBUILD)


def check_images(images: pd.DataFrame, count: int) -> Iterator[Finding]:
    """Yield what is wrong with the table of images.

    Parameters
    ----------
    count
        Rows that the manifest promises.
    """
    missing = {"image_id", "path", "width", "height", "sha256"} - set(images)
    if missing:
        yield damage(IMAGES, f"has no column {min(missing)!r}")
        return
    yield from _count(IMAGES, len(images), count)
    if not images["image_id"].is_unique:
        yield damage(IMAGES, "holds an image_id twice")
    bad = ~images["sha256"].str.fullmatch("[0-9a-f]{64}").to_numpy(bool)
    yield from _rows(IMAGES, "have no SHA-256", bad)
    yield from _rows(IMAGES, "have no size", (images[["width", "height"]] < 1).any(axis=1))


def check_vectors(name: str, vectors: np.ndarray, shape: tuple[int, int]) -> Iterator[Finding]:
    """Yield what is wrong with a file of vectors, which should be `shape` float32, unit length."""
    if vectors.shape != shape or vectors.dtype != np.float32:
        yield damage(name, f"holds {vectors.shape} {vectors.dtype}, not {shape} float32")
        return
    starts = range(0, len(vectors), BLOCK)
    blocks = [np.linalg.norm(vectors[start : start + BLOCK], axis=1) for start in starts]
    lengths = np.concatenate([np.empty(0), *blocks])
    finite = np.isfinite(lengths)
    yield from _rows(name, "are not finite", ~finite)
    yield from _rows(name, "are not of unit length", finite & (abs(lengths - 1) > UNIT))


def check_regions(regions: pd.DataFrame, images: pd.DataFrame, count: int) -> Iterator[Finding]:
    """Yield what is wrong with the table of regions, but for their masks.

    Parameters
    ----------
    images
        Table of the images.
    count
        Rows that the manifest promises.
    """
    missing = [name for name in COLUMNS if name not in regions]
    if missing:
        yield damage(REGIONS, f"has no column {missing[0]!r}")
        return
    yield from _count(REGIONS, len(regions), count)
    rows = regions["row"].to_numpy()
    outside = (rows < 0) | (rows >= len(images))
    yield from _rows(REGIONS, f"point outside of the {len(images)} images", outside)
    if (np.diff(rows) < 0).any():
        yield damage(REGIONS, "its rows do not ascend")
    if not regions["region_id"].is_unique:
        yield damage(REGIONS, "holds a region_id twice")
    if outside.any():
        return
    owners = images.iloc[rows]
    other = owners["image_id"].to_numpy() != regions["image_id"].to_numpy()
    yield from _rows(REGIONS, "name another image than they point to", other)
    width, height = (owners[side].to_numpy() for side in ("width", "height"))
    x0, y0, x1, y1 = (regions[side].to_numpy() for side in ("x0", "y0", "x1", "y1"))
    inside = (0 <= x0) & (x0 < x1) & (x1 <= width) & (0 <= y0) & (y0 < y1) & (y1 <= height)
    yield from _rows(REGIONS, "have a box outside of their image", ~inside)


def check_masks(regions: pd.DataFrame, images: pd.DataFrame) -> Iterator[Finding]:
    """Yield what is wrong with the masks of regions, whose table is right otherwise."""
    sizes = images[["height", "width"]].to_numpy()
    lines = progress(regions.itertuples(), desc="decode masks", total=len(regions))
    reasons = [_check_mask(line, sizes[line.row].tolist()) for line in lines]
    for reason in sorted({reason for reason in reasons if reason}):
        yield from _rows(REGIONS, reason, np.array([r == reason for r in reasons]))


def _check_mask(region: tuple, size: list[int]) -> str:
    try:
        mask = rle_to_mask({"size": size, "counts": region.rle})
    except (ValueError, TypeError, AttributeError):
        return "have a mask that cannot be decoded"
    if not mask.any() or int(mask.sum()) != region.area:
        return "have a mask of another area"
    if list(mask_to_box(mask)) != [region.x0, region.y0, region.x1, region.y1]:
        return "have a mask with another box"
    named = name_region(region.image_id, region.rle) == region.region_id
    return "" if named else "have a mask with another id"


def _count(name: str, held: int, count: int) -> Iterator[Finding]:
    if held != count:
        yield damage(name, f"holds {held} rows, not {count}")


def _rows(name: str, what: str, bad: np.ndarray | pd.Series) -> Iterator[Finding]:
    rows = np.flatnonzero(bad)
    if len(rows):
        yield damage(name, f"{len(rows)} rows {what}, the first: {rows[0]}")
