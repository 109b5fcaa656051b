"""Regions of an index: every part of every image as a mask and a vector, to search among."""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from regionlab.embedding import Encoder
from regionlab.index import Index, open_index
from regionlab.index_files import IndexFolderError
from regionlab.index_lock import claim_index
from regionlab.masking import Everything, Segmenter
from regionlab.region_files import write_region_files
from regionlab.region_merge import KnownRegions, know_no_regions, merge_regions
from regionlab.region_shards import write_shards
from regionlab.regions import DEFAULT_ENCODING, find_encoding
from regionlab.workshop import (
    REGIONS,
    finish_swap,
    get_workshop,
    has_leftovers,
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
    segmenter, settings, encoding and model that are there already are kept as they are; work
    that was killed goes on where it stopped.

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
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    find_encoding(encoding)  # raises for an unknown one
    everything = everything or segmenter.everything
    policy = _describe_policy(segmenter, everything, encoding, encoder)
    folder = index.folder
    current = None if fresh or has_leftovers(folder, REGIONS) else _reopen(index)
    if current is None or not _is_made_by(current, policy):
        with claim_index(folder):
            finish_swap(folder)
            current = _reopen(index)
            if fresh or not _is_made_by(current, policy):
                plan = json.dumps([index.id, policy, shard_size])
                work = open_workshop(folder, REGIONS, plan, fresh=fresh)
                known = know_no_regions(encoder.dim)
                make_regions(current, segmenter, encoder, work, policy, known, shard_size)
                finish_swap(folder)
                current = open_index(folder)
            shutil.rmtree(get_workshop(folder, REGIONS), ignore_errors=True)
    _warn_of_failures(current)
    return current


def make_regions(
    index: Index,
    segmenter: Segmenter,
    encoder: Encoder,
    work: Path,
    policy: dict[str, Any],
    known: KnownRegions,
    shard_size: int,
) -> None:
    """Find the regions of an index that are not known, and make it anew with all, `work`/ready."""
    shards = work / "region shards"
    shards.mkdir(exist_ok=True)
    rest = known.find_rest(len(index))
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
    with whole_folder(work / "ready") as new:
        write_region_files(new, index.folder, policy, *merge_regions(known, rest, shards))


def _reopen(index: Index) -> Index:
    current = open_index(index.folder)
    if current.id != index.id:
        raise IndexFolderError(
            f"the index {index.folder} was built again since this one was opened: open it anew"
        )
    return current


def _describe_policy(
    segmenter: Segmenter, everything: Everything, encoding: str, encoder: Encoder
) -> dict[str, Any]:
    """Return what decides the regions, as it reads back from JSON."""
    policy = {
        "segmenter": segmenter.fingerprint,
        "everything": dataclasses.asdict(everything),
        "encoding": encoding,
        "model": encoder.fingerprint,
    }
    return json.loads(json.dumps(policy))


def _is_made_by(index: Index, policy: dict[str, Any]) -> bool:
    made = index.manifest["regions"]
    return made is not None and all(made[key] == value for key, value in policy.items())


def _warn_of_failures(index: Index) -> None:
    failures = index.region_failures
    if len(failures):
        first = failures.iloc[0]
        warnings.warn(
            f"{len(failures)} images have no regions, the first: {first['path']}: "
            f"{first['reason']}; all are listed in {index.folder / 'region_failures.csv'}. "
            "fresh=True tries them again",
            stacklevel=3,
        )
