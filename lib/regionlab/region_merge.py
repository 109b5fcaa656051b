"""Regions that a new index takes over from an older one, put together with those found anew."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from regionlab.index import Index
from regionlab.region_files import COLUMNS, empty_table, name_region
from regionlab.region_shards import read_tables, read_vectors
from regionlab.vector_files import merge_vectors


class KnownRegions(NamedTuple):
    """Regions of an older index, as the new one will have them.

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
    vectors: np.ndarray
    visits: pd.DataFrame

    def find_rest(self, count: int) -> np.ndarray:
        """Return the rows of a new index of `count` images that need a visit, ascending."""
        return np.setdiff1d(np.arange(count), self.visits.index)


def know_no_regions(dim: int) -> KnownRegions:
    """Return what is known without an older index: nothing."""
    visits = pd.DataFrame({"reason": [""], "seconds": [0.0]}).iloc[:0]
    nothing = np.empty((0, dim), np.float32)
    return KnownRegions(empty_table(), np.empty(0, np.int64), nothing, visits)


def take_over_regions(
    old: Index, images: pd.DataFrame, rows: np.ndarray, *, retry: bool
) -> KnownRegions:
    """Return the regions of an older index that the images of a new one take over.

    Parameters
    ----------
    old
        With regions.
    images
        The new index's table.
    rows
        (n,) int64, for each of them the row in the old index of the same picture, or -1.
    retry
        Whether images that had failed are to be visited again.
    """
    reasons = old.region_failures.set_index("image_id")["reason"]
    reasons = reasons.reindex(old.images["image_id"], fill_value="").to_numpy()
    wanted = (rows >= 0) & ((reasons[rows] == "") | (not retry))
    new_rows, old_rows = np.flatnonzero(wanted), rows[wanted]
    sources, counts = _find_lines(old, old_rows)
    table = old.regions.iloc[sources].reset_index(drop=True)
    ids = np.repeat(images["image_id"].to_numpy()[new_rows], counts)
    other = np.flatnonzero(table["image_id"].to_numpy() != ids)
    table = table.assign(image_id=ids, row=np.repeat(new_rows, counts)).astype(COLUMNS)
    # The same picture under another name gives its regions other names.
    names = [name_region(ids[line], table["rle"].iloc[line]) for line in other]
    table.loc[other, "region_id"] = names
    seconds = old.manifest["regions"]["seconds"] / max(len(old), 1)
    visits = pd.DataFrame({"reason": reasons[old_rows], "seconds": seconds}, index=new_rows)
    return KnownRegions(table, sources, old.region_vectors, visits)


def _find_lines(old: Index, old_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lines of the regions of images, one image after another, and how many each."""
    lines = old.regions["row"].to_numpy()
    starts, stops = np.searchsorted(lines, old_rows), np.searchsorted(lines, old_rows, "right")
    ranges = [np.arange(a, b) for a, b in zip(starts, stops, strict=True)]
    return np.concatenate([np.empty(0, np.int64), *ranges]), stops - starts


def merge_regions(
    known: KnownRegions, rest: np.ndarray, shards: Path
) -> tuple[pd.DataFrame, Iterator[np.ndarray], pd.DataFrame]:
    """Return table, vectors in blocks, and visits of a new index.

    Parameters
    ----------
    known
        What it takes over.
    rest
        Rows of the images that the shards hold.
    shards
        Their folder.
    """
    regions, visits = read_tables(shards)
    table = pd.concat([known.table, regions], ignore_index=True)
    sources = np.concatenate([known.sources, np.full(len(regions), -1)])
    order = np.argsort(table["row"].to_numpy(), kind="stable")
    vectors = merge_vectors(known.vectors, sources[order], read_vectors(shards))
    visits = pd.concat([known.visits, visits.set_axis(rest)]).sort_index()
    return table.iloc[order].reset_index(drop=True), vectors, visits
