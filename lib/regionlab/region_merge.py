"""Regions that a new index takes over from an older one, put together with those found anew."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from regionlab.index_reading import Index
from regionlab.region_files import COLUMNS, PENDING, empty_table, name_region
from regionlab.region_shards import list_shards, read_tables, read_vectors
from regionlab.vector_files import StackedVectors, merge_vectors, open_vectors


class RegionSource(NamedTuple):
    """Regions that are there already, of an index or in the shards of work that was cut off.

    Attributes
    ----------
    images
        `sha256`, `reason` and `seconds` of each image that was looked at.
    table
        `COLUMNS`; `row` is that of the image in `images`, ascending.
    vectors
        (r, d) float32, one a region.
    """

    images: pd.DataFrame
    table: pd.DataFrame
    vectors: np.ndarray | StackedVectors

    def match(self, images: pd.DataFrame, *, retry: bool) -> np.ndarray:
        """Return for each image the row here of the same contents, -1 for none."""
        usable = self.images[_find_usable(self.images["reason"], retry)]
        first = usable.drop_duplicates("sha256")
        rows = pd.Index(first["sha256"]).get_indexer(images["sha256"])
        return np.where(rows < 0, -1, first.index.to_numpy(np.int64)[rows] if len(first) else -1)


class KnownRegions(NamedTuple):
    """Regions that are taken over, as the new index will have them.

    Attributes
    ----------
    table
        `COLUMNS` of the new index, its rows ascending.
    sources
        (k,) int64, the row of each in the old table.
    vectors
        (r, d) float32, those of the old table.
    visits
        `reason` and `seconds` of the images that need no visit, by their row in the new index.
    """

    table: pd.DataFrame
    sources: np.ndarray
    vectors: np.ndarray | StackedVectors
    visits: pd.DataFrame

    def find_rest(self, count: int) -> np.ndarray:
        """Return the rows of a new index of `count` images that need a visit, ascending."""
        return np.setdiff1d(np.arange(count), self.visits.index)


def read_source(index: Index) -> RegionSource:
    """Return the regions of an index."""
    reasons = index.region_failures.set_index("image_id")["reason"]
    reasons = reasons.reindex(index.images["image_id"], fill_value="").to_numpy()
    seconds = index.manifest["regions"]["seconds"] / max(len(index), 1)
    images = index.images[["sha256"]].assign(reason=reasons, seconds=seconds)
    return RegionSource(images, index.regions, index.region_vectors)


def read_salvage(folders: list[Path], dim: int) -> RegionSource:
    """Return the regions in folders of shards."""
    tables, images, parts, start = [empty_table()], [_no_images()], [], 0
    for shard in (shard for folder in folders for shard in list_shards(folder)):
        seen, table = (pd.read_parquet(shard / f"{name}.parquet") for name in ("images", "regions"))
        rows = pd.Index(seen["row"]).get_indexer(table["row"])
        tables.append(table.assign(row=start + rows))
        images.append(seen[["sha256", "reason", "seconds"]])
        parts.append((len(table), partial(open_vectors, shard / "vectors.npy")))
        start += len(seen)
    images = pd.concat(images, ignore_index=True)
    table = pd.concat(tables, ignore_index=True)
    return RegionSource(images, table, StackedVectors(parts, dim))


def stack_sources(first: RegionSource, second: RegionSource) -> RegionSource:
    """Return all regions of two sources; the rows of the second follow those of the first."""
    if not len(second.images):
        return first
    images = pd.concat([first.images, second.images], ignore_index=True)
    below = second.table.assign(row=second.table["row"] + len(first.images))
    table = pd.concat([first.table, below], ignore_index=True)
    parts = [(len(first.table), lambda: first.vectors), (len(second.table), lambda: second.vectors)]
    return RegionSource(images, table, StackedVectors(parts, first.vectors.shape[1]))


def have_no_source(dim: int) -> RegionSource:
    """Return what is known without any regions: nothing."""
    return RegionSource(_no_images(), empty_table(), np.empty((0, dim), np.float32))


def take_over_regions(
    source: RegionSource, images: pd.DataFrame, rows: np.ndarray, *, retry: bool
) -> KnownRegions:
    """Return the regions that the images of a new index take over.

    Parameters
    ----------
    images
        The new index's table.
    rows
        (n,) int64, for each of them the row in the source of the same picture, or -1.
    retry
        Whether images that had failed are to be visited again.
    """
    reasons = source.images["reason"].to_numpy()
    wanted = rows >= 0
    wanted[wanted] = _find_usable(source.images["reason"], retry)[rows[wanted]]
    new_rows, old_rows = np.flatnonzero(wanted), rows[wanted]
    sources, counts = _find_lines(source.table, old_rows)
    table = source.table.iloc[sources].reset_index(drop=True)
    ids = np.repeat(images["image_id"].to_numpy()[new_rows], counts)
    other = np.flatnonzero(table["image_id"].to_numpy() != ids)
    table = table.assign(image_id=ids, row=np.repeat(new_rows, counts)).astype(COLUMNS)
    # The same picture under another name gives its regions other names.
    names = [name_region(ids[line], table["rle"].iloc[line]) for line in other]
    table.loc[other, "region_id"] = names
    seconds = source.images["seconds"].to_numpy()[old_rows]
    visits = pd.DataFrame({"reason": reasons[old_rows], "seconds": seconds}, index=new_rows)
    return KnownRegions(table, sources, source.vectors, visits)


def merge_regions(
    known: KnownRegions, rest: np.ndarray, shards: Path | None
) -> tuple[pd.DataFrame, Iterator[np.ndarray], pd.DataFrame]:
    """Return table, vectors in blocks, and visits of a new index.

    Parameters
    ----------
    known
        What it takes over.
    rest
        Rows of the images that the shards hold.
    shards
        Their folder; None leaves them without regions for now.
    """
    if shards is None:
        regions, visits = empty_table(), pd.DataFrame({"reason": PENDING, "seconds": 0.0}, rest)
    else:
        regions, visits = read_tables(shards)
        visits = visits.set_axis(rest)
    table = pd.concat([known.table, regions], ignore_index=True)
    sources = np.concatenate([known.sources, np.full(len(regions), -1)])
    order = np.argsort(table["row"].to_numpy(), kind="stable")
    fresh = iter(()) if shards is None else read_vectors(shards)
    vectors = merge_vectors(known.vectors, sources[order], fresh)
    visits = pd.concat([known.visits, visits]).sort_index()
    return table.iloc[order].reset_index(drop=True), vectors, visits


def _no_images() -> pd.DataFrame:
    images = pd.DataFrame({"sha256": [""], "reason": [""], "seconds": [0.0]}).iloc[:0]
    return images.astype({"sha256": "str", "reason": "str"})


def _find_usable(reasons: pd.Series, retry: bool) -> np.ndarray:
    """Tell which images need no visit: those without a reason, or that are not tried again."""
    good = reasons == "" if retry else reasons != PENDING
    return good.to_numpy(bool)


def _find_lines(table: pd.DataFrame, old_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lines of the regions of images, one image after another, and how many each."""
    lines = table["row"].to_numpy()
    starts, stops = np.searchsorted(lines, old_rows), np.searchsorted(lines, old_rows, "right")
    ranges = [np.arange(a, b) for a, b in zip(starts, stops, strict=True)]
    return np.concatenate([np.empty(0, np.int64), *ranges]), stops - starts
