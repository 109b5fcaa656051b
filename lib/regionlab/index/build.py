"""Index: the vectors of a collection's images on disk, with what is needed to trust them.

A folder with `manifest.json`, `images.parquet`, `image_vectors.npy` and `failures.csv`; with
`regions.parquet`, `region_vectors.npy` and `region_failures.csv` where regions were added; and
with `stamps.json`, a cache. It is built in a hidden folder beside its place and put there in one
move, so a build that was killed goes on where it stopped and an index that can be opened is whole.
"""

import errno
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regionlab.data.collection import Collection
from regionlab.index.change import Change, check_sizes, make_change, match_images
from regionlab.index.index import Index, open_index
from regionlab.index.regions import describe_policy, has_regions, warn_of_region_failures
from regionlab.index.shards import write_shards
from regionlab.index.staging import (
    IMAGES,
    PREVIOUS,
    REGIONS,
    check_replaceable,
    drop_previous,
    finish_swap,
    get_workshop,
    has_leftovers,
    lock_index,
    plan_build,
)
from regionlab.index.stamps import Look, hash_unknown, look_at_files, refresh_stamps
from regionlab.index.tables import IndexFolderError, make_storable, read_manifest
from regionlab.models.encoder import Encoder
from regionlab.models.segmenter import MaskGeneratorConfig, Segmenter
from regionlab.regions.encodings import DEFAULT_ENCODING

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def build_index(
    collection: Collection,
    encoder: Encoder,
    folder: Path | str,
    *,
    batch_size: int | str = 64,
    workers: int = 2,
    shard_size: int = 2048,
    fresh: bool = False,
    segmenter: Segmenter | None = None,
    encoding: str = DEFAULT_ENCODING,
    everything: MaskGeneratorConfig | None = None,
) -> Index:
    """Embed all images of a collection into an index on disk, or go on with one begun.

    Images are known by their contents (SHA-256): of an index by the same model that is there
    already, every image that was only touched, renamed, copied or mounted elsewhere keeps its
    vector and its regions, and only what is new is embedded; a line says what is new and what is
    kept. Files are read for this where size or time of change are others than were recorded. Where
    there is no index yet, one beside it of a moved or copied folder serves as well.

    Images that cannot be read are listed in the index's failures, with a warning, and never
    stop the build; so is one whose vector is not finite.

    Parameters
    ----------
    collection
        Which images. Further columns of its table are kept; one that holds what has no type of
        its own in a table (values of several kinds, lists, mappings, bytes, integers over 64
        bits) becomes JSON text.
    encoder
        Which vectors.
    folder
        Where the index goes. An index of another model that lies there is replaced once the new
        one is complete; its regions stay beside it, hidden, until the new one has some, and come
        back with its model.
    batch_size, workers
        As for `Encoder.encode_stream`; "auto" measures the batch size once, if there is work.
    shard_size
        Images between two savings, what a killed build has to do again at most; rounded up to
        whole batches.
    fresh
        Embed everything again, whatever is there.
    segmenter, encoding, everything
        As for `add_regions`: make the regions too, in one step with the images. Without a
        segmenter regions that are there are kept, and images that have none yet are listed in
        `region_failures` until `add_regions` makes them.

    Raises
    ------
    ValueError
        If the collection is empty, not one of its images can be read, or its table cannot be
        saved.
    IndexFolderError
        If `folder` holds something that is not part of an index, another process is writing
        it, or the disk is full or cannot be written to; an index that was there is as it was.
    """
    sizes = check_sizes(batch_size, workers, shard_size)
    work = RegionWork(segmenter, None)
    if segmenter is not None:
        work = RegionWork(segmenter, describe_policy(segmenter, encoder, encoding, everything))
    index = make_index(collection, encoder, folder, sizes, fresh=fresh, regions=work)
    warn_of_failures(index)
    if segmenter is not None:
        warn_of_region_failures(index)
    return index


class RegionWork(NamedTuple):
    """Who finds regions, and how: `policy` of `describe_policy`. None leaves them as they are."""

    segmenter: Segmenter | None = None
    policy: dict[str, Any] | None = None


def make_index(
    collection: Collection,
    encoder: Encoder,
    folder: Path | str,
    sizes: dict[str, Any],
    *,
    fresh: bool,
    write: Callable[..., None] = write_shards,
    regions: RegionWork | None = None,
) -> Index:
    """Do what `build_index` does, with `write` for the embedding and without a warning.

    Parameters
    ----------
    encoder
        Passed on to `write`; else only its `space`, `fingerprint` and `dim` are asked for.
    sizes
        Of `check_sizes`.
    write
        Writes the shards that are missing: `write_shards`, or another that takes the same.
    """
    if not len(collection):
        raise ValueError(f"{collection!r} has no images to index")
    folder = Path(folder).expanduser().resolve()
    check_replaceable(folder)
    regions = regions or RegionWork()
    collection = make_storable(collection)
    plan = plan_build(collection, encoder)
    segmenter, policy = regions
    current = partial(_open_if_current, folder, collection, plan, regions, sizes["workers"])
    index = None if fresh or has_leftovers(folder, IMAGES) else current()
    if index is not None:
        return index
    try:
        with lock_index(folder):
            finish_swap(folder)
            index = None if fresh else current()
            if index is None:
                change = Change(
                    folder, collection, plan, look_at_files(collection), encoder, segmenter, policy,
                    sizes, write, retry=segmenter is not None, fresh=fresh,
                )  # fmt: skip
                index = _make(change)
            _tidy_up(index, policy)
    except IndexFolderError as e:
        refused = getattr(e.__cause__, "errno", None) in READ_ONLY and not fresh
        index = _open_if_alike(folder, collection, encoder, regions) if refused else None
        if index is None:
            raise
    return index


def _tidy_up(index: Index, policy: dict[str, Any] | None) -> None:
    """Remove what is beside an index for as long as it is not complete."""
    if has_regions(index):
        drop_previous(index.folder)
        if policy is not None:
            shutil.rmtree(get_workshop(index.folder, REGIONS), ignore_errors=True)
    shutil.rmtree(get_workshop(index.folder, IMAGES), ignore_errors=True)


def _make(change: Change) -> Index:
    """Make the index that is wanted, with what others hold of it already."""
    replaced = _open_or_not(change.folder)
    candidates = [] if change.fresh else list(_find_candidates(change, replaced))
    source, rows = None, np.full(len(change.collection), -1)
    if candidates:
        seen = look_at_files(change.collection, *(index.folder for index in candidates))
        change = replace(
            change, look=hash_unknown(change.collection, seen, change.sizes["workers"])
        )
        source, rows = _choose_source(change, candidates, replaced)
    return make_change(change, source, rows, replaced)


def _find_candidates(change: Change, replaced: Index | None) -> Iterator[Index]:
    """Yield indexes by the model that is wanted: here, put aside, and of folders that moved."""
    here, aside = change.folder, get_workshop(change.folder, PREVIOUS)
    own = [index for index in (replaced, _open_or_not(aside)) if index is not None]
    own = [index for index in own if _is_by(index.manifest, change)]
    yield from own
    if own or not here.parent.is_dir():
        return
    for folder in sorted(here.parent.iterdir()):
        if folder == here or folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            if _is_elsewhere(read_manifest(folder), change):
                yield open_index(folder)
        except IndexFolderError:
            continue


def _choose_source(
    change: Change, candidates: list[Index], replaced: Index | None
) -> tuple[Index | None, np.ndarray]:
    """Return the index that holds most, and the row there of each image."""
    best, most = None, (-1, 0)
    rows = np.full(len(change.collection), -1)
    for index in candidates:
        ids, digests = change.collection.images["image_id"], change.look.digests
        found = match_images(index.images, ids, digests)
        own = index is replaced or index.folder == get_workshop(change.folder, PREVIOUS)
        held = int((found >= 0).sum())
        if not own and 2 * held < max(len(found), len(index)):
            continue  # another collection that has some pictures in common
        if (held, index.regions is not None) > most:
            best, most, rows = index, (held, index.regions is not None), found
    return best, rows


def _is_by(manifest: dict[str, Any], change: Change) -> bool:
    encoder = change.encoder
    return manifest["space"] == encoder.space and manifest["model"] == encoder.fingerprint


def _is_elsewhere(manifest: dict[str, Any], change: Change) -> bool:
    """Tell whether an index is by the model that is wanted, and of another folder by its name.

    One of the very same collection is in another place on purpose.
    """
    collection = change.collection
    wanted = [collection.name, collection.split, str(collection.root.resolve())]
    held = [manifest.get(key) for key in ("collection", "split", "root")]
    return held != wanted and _is_by(manifest, change)


def _open_if_current(
    folder: Path, collection: Collection, plan: str, regions: RegionWork, workers: int
) -> Index | None:
    """Return the index of a folder if nothing about it has to be made anew, else None."""
    index = _open_or_not(folder)
    if index is None or index.manifest["plan"] != plan:
        return None
    if index.root != collection.root.resolve():
        return None
    if regions.policy is not None and not has_regions(index, regions.policy):
        return None
    look = look_at_files(collection, folder)
    known = look.is_known()
    look = look if known else hash_unknown(collection, look, workers)
    if not _holds(index, collection, look):
        return None
    if not known:
        refresh_stamps(folder, collection, look)
    return index


def _holds(index: Index, collection: Collection, look: Look) -> bool:
    """Tell whether an index has the very contents of a collection's files, in their order."""
    held = index.images.set_index("image_id")["sha256"]
    expected = held.reindex(collection.images["image_id"], fill_value="").to_numpy()
    read = expected != ""
    same = (expected == look.digests).all() and read.sum() == len(index)
    return bool(same) and index.images["image_id"].equals(
        collection.images["image_id"][read].reset_index(drop=True)
    )


def _open_if_alike(
    folder: Path, collection: Collection, encoder: Encoder, regions: RegionWork
) -> Index | None:
    """Return an index that cannot be written to, if only places and times are not up to date."""
    index = _open_or_not(folder)
    change = Change(folder, collection, "", Look([], np.empty(0)), encoder)
    if index is None or not _is_by(index.manifest, change):
        return None
    if regions.policy is not None and not has_regions(index, regions.policy):
        return None
    look = hash_unknown(collection, look_at_files(collection, folder), 2)
    sizes = ["width", "height"]
    held = index.images.drop(columns=[*sizes, "sha256"]).astype(str)
    read = collection.images["image_id"].isin(held["image_id"])
    wanted = collection.images[read].drop(columns=sizes).reset_index(drop=True).astype(str)
    alike = _holds(index, collection, look) and held.equals(wanted)
    return replace(index, root=collection.root.resolve()) if alike else None


def _open_or_not(folder: Path) -> Index | None:
    try:
        return open_index(folder)
    except IndexFolderError:
        return None


def warn_of_failures(index: Index) -> None:
    """Warn the caller's caller of files that are not in an index."""
    if len(index.failures):
        first = index.failures.iloc[0]
        warnings.warn(
            f"{len(index.failures)} files are not in the index, the first: {first['path']}: "
            f"{first['reason']}; all are listed in {index.folder / 'failures.csv'}",
            stacklevel=3,
        )
