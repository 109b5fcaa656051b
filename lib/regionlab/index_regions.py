"""Regions of an index: every part of every image as a mask and a vector, to search among."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from regionlab.embedding import Encoder
from regionlab.index_files import IndexFolderError
from regionlab.index_lock import claim_index
from regionlab.index_reading import Index, open_index
from regionlab.masking import Everything, Segmenter
from regionlab.progress import say
from regionlab.region_files import PENDING, write_region_files
from regionlab.region_merge import (
    KnownRegions,
    RegionSource,
    have_no_source,
    merge_regions,
    read_salvage,
    read_source,
    stack_sources,
    take_over_regions,
)
from regionlab.region_shards import write_shards
from regionlab.regions import DEFAULT_ENCODING, find_encoding
from regionlab.workshop import (
    REGION_SHARDS,
    REGIONS,
    drop_previous,
    finish_swap,
    get_workshop,
    has_leftovers,
    open_shards,
    open_workshop,
    whole_folder,
)


def add_regions(
    index: Index,
    segmenter: Segmenter,
    encoder: Encoder,
    *,
    encoding: str = DEFAULT_ENCODING,
    everything: Everything | None = None,
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
        with claim_index(folder):
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
            everything=Everything(**policy["everything"]),
            shard_size=shard_size,
        )
    merged = merge_regions(known, rest, None if segmenter is None else shards)
    same = (
        source is not None
        and known.table.equals(source.table)
        and len(merged[0]) == len(known.table)
    )
    with whole_folder(work / "ready") as new:
        unchanged = unchanged if same else None
        write_region_files(new, index.folder, policy, *merged, unchanged=unchanged)


def _find_known(
    index: Index, source: RegionSource | None, rows: np.ndarray, salvage: RegionSource, retry: bool
) -> KnownRegions:
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
    segmenter: Segmenter, encoder: Encoder, encoding: str, everything: Everything | None
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
