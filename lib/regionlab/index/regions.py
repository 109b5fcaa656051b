"""Regions of an index: every part of every image as a mask and a vector, to search among."""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from regionlab.index.index import Index, open_index
from regionlab.index.region_shards import list_shards, read_tables, read_vectors, write_shards
from regionlab.index.staging import (
    REGION_SHARDS,
    REGIONS,
    drop_previous,
    finish_swap,
    get_workshop,
    has_leftovers,
    lock_index,
    open_shards,
    open_workshop,
    staged_folder,
)
from regionlab.index.tables import (
    PENDING,
    REGION_COLUMNS,
    IndexFolderError,
    empty_table,
    name_region,
    write_region_files,
)
from regionlab.index.vectors import StackedVectors, merge_vectors, open_vectors
from regionlab.models.encoder import Encoder
from regionlab.models.segmenter import MaskGeneratorConfig, Segmenter
from regionlab.regions.encodings import DEFAULT_ENCODING, find_encoding
from regionlab.util.progress import say


class RegionSource(NamedTuple):
    """Regions that are there already, of an index or in the shards of work that was cut off.

    Attributes
    ----------
    images
        `sha256`, `reason` and `seconds` of each image that was looked at.
    table
        `REGION_COLUMNS`; `row` is that of the image in `images`, ascending.
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


class ReusedRegions(NamedTuple):
    """Regions that are taken over, as the new index will have them.

    Attributes
    ----------
    table
        `REGION_COLUMNS` of the new index, its rows ascending.
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
) -> ReusedRegions:
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
    table = table.assign(image_id=ids, row=np.repeat(new_rows, counts)).astype(REGION_COLUMNS)
    # The same picture under another name gives its regions other names.
    names = [name_region(ids[line], table["rle"].iloc[line]) for line in other]
    table.loc[other, "region_id"] = names
    seconds = source.images["seconds"].to_numpy()[old_rows]
    visits = pd.DataFrame({"reason": reasons[old_rows], "seconds": seconds}, index=new_rows)
    return ReusedRegions(table, sources, source.vectors, visits)


def merge_regions(
    known: ReusedRegions, rest: np.ndarray, shards: Path | None
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


def add_regions(
    index: Index,
    segmenter: Segmenter,
    encoder: Encoder,
    *,
    encoding: str = DEFAULT_ENCODING,
    everything: MaskGeneratorConfig | None = None,
    shard_size: int = 128,
    fresh: bool = False,
) -> Index:
    """Find all regions of an index's images, encode them, and return the index with them.

    Images that can no longer be read, or are not the files that were indexed, are listed in
    `region_failures`, with a warning, and never stop the work. Regions made by the same
    segmenter, settings, encoding and model that are there already are kept as they are, and only
    images that came or changed since are segmented; work that was killed goes on where it stopped.
    Regions made otherwise stay until all of the new ones are there.

    Parameters
    ----------
    index
        Which images.
    segmenter
        Finds the masks.
    encoder
        Makes the vectors: of the index's own space.
    encoding
        How a region is shown to it, a name in `regions.REGION_ENCODINGS`.
    everything
        Settings of `Segmenter.segment_everything`; None for its own.
    shard_size
        Images between two savings, what killed work has to do again at most.
    fresh
        Do everything again, whatever is there; as to retry images that could not be read.

    Raises
    ------
    ValueError
        If `encoding` is not known, `shard_size` is below 1, or not one image can be read.
    IndexFolderError
        If the encoder is of another space, or the index on disk is no longer this one.
    """
    index.check_encoder(encoder)
    policy = describe_policy(segmenter, encoder, encoding, everything)
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    folder = index.folder
    current = None if fresh or has_leftovers(folder, REGIONS) else _reopen(index)
    if current is None or not has_regions(current, policy):
        with lock_index(folder):
            finish_swap(folder)
            current = _reopen(index)
            if fresh or not has_regions(current, policy):
                current = _add(current, segmenter, encoder, policy, shard_size, fresh)
            drop_previous(folder)
            shutil.rmtree(get_workshop(folder, REGIONS), ignore_errors=True)
    warn_of_region_failures(current)
    return current


def _add(
    index: Index,
    segmenter: Segmenter,
    encoder: Encoder,
    policy: dict[str, Any],
    shard_size: int,
    fresh: bool,
) -> Index:
    kept = not fresh and is_made_by(index, policy)
    plan = [index.id, kept and index.regions_id, policy, shard_size]
    work = open_workshop(index.folder, REGIONS, json.dumps(plan), fresh=fresh)
    source = read_source(index) if kept else None
    rows = np.arange(len(index)) if kept else np.full(len(index), -1)
    make_regions(index, work, policy, source, rows, segmenter, encoder, shard_size=shard_size)
    finish_swap(index.folder)
    return open_index(index.folder)


def make_regions(
    index: Index,
    work: Path,
    policy: dict[str, Any],
    source: RegionSource | None,
    rows: np.ndarray,
    segmenter: Segmenter | None,
    encoder: Encoder | None,
    *,
    shard_size: int,
    retry: bool = False,
    unchanged: Path | None = None,
) -> None:
    """Make an index anew with regions, in `work`/ready: those known, and the others found.

    Parameters
    ----------
    index
        Which images.
    policy
        Of `describe_policy`.
    source, rows
        Regions made by this policy, and for each image its row there, -1 for none.
    segmenter, encoder
        Find the others; without a segmenter they are listed as pending.
    shard_size, retry
        As for `add_regions` and `take_over_regions`.
    unchanged
        Folder of the index whose regions the source has, in the same order.
    """
    dim = index.manifest["dim"]
    shards, others = open_shards(work, REGION_SHARDS, policy)
    known = _find_known(index, source, rows, read_salvage(others, dim), retry)
    rest = known.find_rest(len(index))
    if len(rest) and len(known.visits) and segmenter is not None:
        say(f"regions: {len(rest)} new, {len(known.visits)} kept")
    if segmenter is not None and len(rest):
        write_shards(
            index,
            rest,
            segmenter,
            encoder,
            shards,
            encoding=policy["encoding"],
            everything=MaskGeneratorConfig(**policy["everything"]),
            shard_size=shard_size,
        )
    merged = merge_regions(known, rest, None if segmenter is None else shards)
    same = (
        source is not None
        and known.table.equals(source.table)
        and len(merged[0]) == len(known.table)
    )
    with staged_folder(work / "ready") as new:
        unchanged = unchanged if same else None
        write_region_files(new, index.folder, policy, *merged, unchanged=unchanged)


def _find_known(
    index: Index, source: RegionSource | None, rows: np.ndarray, salvage: RegionSource, retry: bool
) -> ReusedRegions:
    """Return the regions of a source, and of cut off work where the source has none."""
    images = index.images
    source = have_no_source(index.manifest["dim"]) if source is None else source
    known = take_over_regions(source, images, rows, retry=retry)
    if not len(salvage.images):
        return known
    found = salvage.match(images, retry=True)
    open_rows = np.zeros(len(index), bool)
    open_rows[known.find_rest(len(index))] = True
    saved = open_rows & (found >= 0)
    rows = np.where(saved, found + len(source.images), rows)
    return take_over_regions(stack_sources(source, salvage), images, rows, retry=retry)


def _reopen(index: Index) -> Index:
    current = open_index(index.folder)
    if current.id != index.id:
        raise IndexFolderError(
            f"the index {index.folder} was built again since this one was opened: open it anew"
        )
    return current


def describe_policy(
    segmenter: Segmenter, encoder: Encoder, encoding: str, everything: MaskGeneratorConfig | None
) -> dict[str, Any]:
    """Return what decides the regions, as it reads back from JSON.

    Raises
    ------
    ValueError
        If `encoding` is not known.
    """
    find_encoding(encoding)
    policy = {
        "segmenter": segmenter.fingerprint,
        "everything": dataclasses.asdict(everything or segmenter.everything),
        "encoding": encoding,
        "model": encoder.fingerprint,
    }
    return json.loads(json.dumps(policy))


def has_regions(index: Index, policy: dict[str, Any] | None = None) -> bool:
    """Tell whether an index has the regions of all its images, made by a policy if one is given."""
    if index.regions is None or not (policy is None or is_made_by(index, policy)):
        return False
    return PENDING not in set(index.region_failures["reason"])


def is_made_by(index: Index, policy: dict[str, Any]) -> bool:
    """Tell whether regions of an index were made by a policy."""
    made = index.manifest["regions"]
    return made is not None and all(made[key] == value for key, value in policy.items())


def warn_of_region_failures(index: Index) -> None:
    """Warn the caller's caller of images without regions."""
    failures = index.region_failures
    if len(failures):
        first = failures.iloc[0]
        warnings.warn(
            f"{len(failures)} images have no regions, the first: {first['path']}: "
            f"{first['reason']}; all are listed in {index.folder / 'region_failures.csv'}. "
            "fresh=True tries them again",
            stacklevel=3,
        )
