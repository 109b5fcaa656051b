"""Build an index of images and their regions, and open one that is built first if absent.

An index is a folder with `manifest.json`, `images.parquet`, `image_vectors.npy`, `failures.csv`,
the same three of regions where these were added, and a cache, `stamps.json`. It is built in a
hidden folder beside its place and put there in one move, so a build that was killed goes on
where it stopped and an index that can be opened is whole.
"""

import errno
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from regionlab.data.collection import Collection
from regionlab.index import index as reading
from regionlab.index.change import (
    Change,
    check_sizes,
    describe_regions,
    has_regions,
    is_made_by,
    make_change,
    make_regions,
    match_images,
)
from regionlab.index.index import Index
from regionlab.index.shards import write_image_shards
from regionlab.index.sources import (
    Look,
    hash_build,
    hash_unknown,
    look_at_files,
    make_storable,
    refresh_stamps,
)
from regionlab.index.staging import (
    IMAGES,
    PREVIOUS,
    REGIONS,
    check_replaceable,
    drop_previous,
    finish_swap,
    get_staging,
    has_leftovers,
    lock_index,
    open_staging,
)
from regionlab.index.tables import IndexFolderError, read_manifest
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import MaskGeneratorConfig, Segmenter

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def open_index(
    folder: Path | str,
    *,
    collection: Collection | None = None,
    encoder: "Encoder | None" = None,
    segmenter: "Segmenter | Callable[[], Segmenter] | None" = None,
    regions: str | None = None,
    everything: "MaskGeneratorConfig | None" = None,
) -> Index:
    """Open an index after checking that its tables and vectors agree.

    With a collection and an encoder what is absent, or no longer what the collection holds, is
    built first, as by `build_index` and `add_regions`.

    Parameters
    ----------
    folder
        Where the index lies, or goes.
    collection, encoder
        Which images and which vectors; both or neither.
    segmenter
        Finds the regions, for `regions`; or a function that loads one, called only with `regions`.
    regions
        A name in `REGION_ENCODINGS`: the index has regions encoded so. None asks for none.
    everything
        As for `add_regions`.

    Raises
    ------
    IndexFolderError
        If there is no index and nothing to build it from, or it is damaged.
    InputError
        If one of collection and encoder is given without the other, or `regions` without a
        segmenter.
    """
    if (collection is None) != (encoder is None):
        raise InputError("an index is built from a collection and an encoder: give both or none")
    if regions is not None and (collection is None or segmenter is None):
        raise InputError(f"regions={regions!r} needs a collection, an encoder and a segmenter")
    if collection is None:
        return reading.open_index(folder)
    index = build_index(collection, encoder, folder)
    if regions is None:
        return index
    made = segmenter() if callable(segmenter) else segmenter
    return add_regions(index, made, encoder, encoding=regions, everything=everything)


def build_index(
    collection: Collection,
    encoder: "Encoder",
    folder: Path | str,
    *,
    batch_size: int | str = 64,
    workers: int = 2,
    shard_size: int = 2048,
    fresh: bool = False,
    segmenter: "Segmenter | None" = None,
    encoding: str | None = None,
    everything: "MaskGeneratorConfig | None" = None,
) -> Index:
    """Embed all images of a collection into an index on disk, or go on with one begun.

    Images are known by their contents (SHA-256): of an index by the same model that is there
    already, every image that was only touched, renamed, copied or mounted elsewhere keeps its
    vector and its regions, and only what is new is embedded. Where there is no index yet, one
    beside it of a moved or copied folder serves as well. Images that cannot be read, or whose
    vector is not finite, are listed in the index's failures, with a warning, and never stop the
    build.

    Parameters
    ----------
    collection
        Which images. Further columns of its table are kept; one that holds what has no type of
        its own in a table (values of several kinds, lists, mappings, bytes) becomes JSON text.
    encoder
        Which vectors.
    folder
        Where the index goes. An index of another model that lies there is replaced once the new
        one is complete; its regions stay beside it, hidden, until the new one has some, and come
        back with its model.
    batch_size, workers
        As for `Encoder.encode_stream`; "auto" measures the batch size once, if there is work.
    shard_size
        Images between two savings; rounded up to whole batches.
    fresh
        Embed everything again, whatever is there.
    segmenter, encoding, everything
        As for `add_regions`: make the regions too, in one step with the images. Without a
        segmenter regions that are there are kept, and images that have none yet are listed in
        `region_failures` until `add_regions` makes them.

    Raises
    ------
    InputError
        If the collection is empty, not one of its images can be read, its table cannot be saved,
        or an option is not possible.
    IndexFolderError
        If `folder` holds something that is not part of an index, another process is writing
        it, or the disk is full or cannot be written to; an index that was there is as it was.
    """
    sizes = check_sizes(batch_size, workers, shard_size)
    work = RegionWork()
    if segmenter is not None:
        work = RegionWork(segmenter, describe_regions(segmenter, encoder, encoding, everything))
    index = make_index(collection, encoder, folder, sizes, fresh=fresh, regions=work)
    warn_of_failures(index)
    if segmenter is not None:
        _warn_of_region_failures(index)
    return index


def add_regions(
    index: Index,
    segmenter: "Segmenter",
    encoder: "Encoder",
    *,
    encoding: str | None = None,
    everything: "MaskGeneratorConfig | None" = None,
    shard_size: int = 128,
    fresh: bool = False,
) -> Index:
    """Find all regions of an index's images, encode them, and return the index with them.

    Images that can no longer be read, or are not the files that were indexed, are listed in
    `region_failures`, with a warning, and never stop the work. Regions made by the same
    segmenter, settings, encoding and model that are there already are kept, and only images that
    came or changed since are segmented; work that was killed goes on where it stopped. Regions
    made otherwise stay until all of the new ones are there.

    Parameters
    ----------
    index, segmenter
        Which images, and who finds the masks.
    encoder
        Makes the vectors: of the index's own space.
    encoding
        How a region is shown to it, a name in `REGION_ENCODINGS`; None for `DEFAULT_ENCODING`.
    everything
        Settings of `Segmenter.segment_everything`; None for its own.
    shard_size
        Images between two savings.
    fresh
        Do everything again, whatever is there; as to retry images that could not be read.

    Raises
    ------
    InputError
        If `encoding` is not known, `shard_size` is below 1, or not one image can be read.
    IndexFolderError
        If the encoder is of another space, or the index on disk is no longer this one.
    """
    index.check_encoder(encoder)
    config = describe_regions(segmenter, encoder, encoding, everything)
    if shard_size < 1:
        raise InputError(f"shard_size must be at least 1, got {shard_size}")
    folder = index.folder
    current = None if fresh or has_leftovers(folder, REGIONS) else _reopen(index)
    if current is None or not has_regions(current, config):
        with lock_index(folder):
            finish_swap(folder)
            current = _reopen(index)
            if fresh or not has_regions(current, config):
                kept = not fresh and is_made_by(current, config)
                task = [current.id, kept and current.regions_id, config, shard_size]
                work = open_staging(folder, REGIONS, json.dumps(task), fresh=fresh)
                rows = np.arange(len(current)) if kept else np.full(len(current), -1)
                source = current if kept else None
                make_regions(
                    current, work, config, source, rows, segmenter, encoder, shard_size=shard_size
                )
                finish_swap(folder)
                current = reading.open_index(folder)
            drop_previous(folder)
            shutil.rmtree(get_staging(folder, REGIONS), ignore_errors=True)
    _warn_of_region_failures(current)
    return current


def _reopen(index: Index) -> Index:
    current = reading.open_index(index.folder)
    if current.id != index.id:
        raise IndexFolderError(
            f"the index {index.folder} was built again since this one was opened: open it anew"
        )
    return current


class RegionWork(NamedTuple):
    """Who finds regions, and how: `config` of `describe_regions`. None leaves them as they are."""

    segmenter: "Segmenter | None" = None
    config: dict[str, Any] | None = None


def make_index(
    collection: Collection,
    encoder: "Encoder",
    folder: Path | str,
    sizes: dict[str, Any],
    *,
    fresh: bool,
    write: Callable[..., None] = write_image_shards,
    regions: RegionWork = RegionWork(),  # noqa: B008 - a tuple
) -> Index:
    """Do what `build_index` does, with `write` for the embedding and without a warning.

    The encoder is passed on to `write`; else only its `space`, `fingerprint` and `dim` are asked
    for. `sizes` are those of `check_sizes`.
    """
    if not len(collection):
        raise InputError(f"{collection!r} has no images to index")
    folder = Path(folder).expanduser().resolve()
    check_replaceable(folder)
    collection = make_storable(collection)
    build_hash = hash_build(collection, encoder)
    current = partial(
        _open_if_current, folder, collection, build_hash, regions.config, sizes["workers"]
    )
    index = None if fresh or has_leftovers(folder, IMAGES) else current()
    if index is not None:
        return index
    try:
        with lock_index(folder):
            finish_swap(folder)
            index = None if fresh else current()
            if index is None:
                segmenter, config = regions
                change = Change(
                    folder, collection, build_hash, look_at_files(collection), encoder, segmenter,
                    config, sizes, write, retry=segmenter is not None, fresh=fresh,
                )  # fmt: skip
                index = _make(change)
            _tidy_up(index, regions.config)
    except IndexFolderError as e:
        refused = getattr(e.__cause__, "errno", None) in READ_ONLY and not fresh
        index = _open_if_alike(folder, collection, encoder, regions.config) if refused else None
        if index is None:
            raise
    return index


def _tidy_up(index: Index, config: dict[str, Any] | None) -> None:
    """Remove what is beside an index for as long as it is not complete."""
    if has_regions(index):
        drop_previous(index.folder)
        if config is not None:
            shutil.rmtree(get_staging(index.folder, REGIONS), ignore_errors=True)
    shutil.rmtree(get_staging(index.folder, IMAGES), ignore_errors=True)


# ---- which index to take over from


def _make(change: Change) -> Index:
    """Make the index that is wanted, with what others hold of it already."""
    replaced = _open_or_not(change.folder)
    candidates = [] if change.fresh else list(_find_candidates(change, replaced))
    source, rows = None, np.full(len(change.collection), -1)
    if candidates:
        seen = look_at_files(change.collection, *(index.folder for index in candidates))
        look = hash_unknown(change.collection, seen, change.sizes["workers"])
        change = replace(change, look=look)
        source, rows = _choose_source(change, candidates, replaced)
    return make_change(change, source, rows, replaced)


def _find_candidates(change: Change, replaced: Index | None) -> Iterator[Index]:
    """Yield indexes by the model that is wanted: here, put aside, and of folders that moved."""
    here, aside = change.folder, get_staging(change.folder, PREVIOUS)
    own = [index for index in (replaced, _open_or_not(aside)) if index is not None]
    own = [index for index in own if _is_by(index.manifest, change.encoder)]
    yield from own
    if own or not here.parent.is_dir():
        return
    for folder in sorted(here.parent.iterdir()):
        if folder == here or folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            if _is_elsewhere(read_manifest(folder), change):
                yield reading.open_index(folder)
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
        own = index is replaced or index.folder == get_staging(change.folder, PREVIOUS)
        held = int((found >= 0).sum())
        if not own and 2 * held < max(len(found), len(index)):
            continue  # another collection that has some images in common
        if (held, index.regions is not None) > most:
            best, most, rows = index, (held, index.regions is not None), found
    return best, rows


def _is_by(manifest: dict[str, Any], encoder: "Encoder") -> bool:
    return manifest["space"] == encoder.space and manifest["model"] == encoder.fingerprint


def _is_elsewhere(manifest: dict[str, Any], change: Change) -> bool:
    """Tell whether an index is by the model that is wanted, and of another folder by its name.

    One of the very same collection is in another place on purpose.
    """
    collection = change.collection
    wanted = [collection.name, collection.split, str(collection.root.resolve())]
    held = [manifest.get(key) for key in ("collection", "split", "root")]
    return held != wanted and _is_by(manifest, change.encoder)


# ---- whether there is anything to do


def _open_if_current(
    folder: Path,
    collection: Collection,
    build_hash: str,
    config: dict[str, Any] | None,
    workers: int,
) -> Index | None:
    """Return the index of a folder if nothing about it has to be made anew, else None."""
    index = _open_or_not(folder)
    if index is None or index.manifest["plan"] != build_hash:
        return None
    if index.root != collection.root.resolve():
        return None
    if config is not None and not has_regions(index, config):
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
    folder: Path, collection: Collection, encoder: "Encoder", config: dict[str, Any] | None
) -> Index | None:
    """Return an index that cannot be written to, if only places and times are not up to date."""
    index = _open_or_not(folder)
    if index is None or not _is_by(index.manifest, encoder):
        return None
    if config is not None and not has_regions(index, config):
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
        return reading.open_index(folder)
    except IndexFolderError:
        return None


# ---- warnings


def warn_of_failures(index: Index) -> None:
    """Warn the caller's caller of files that are not in an index."""
    if len(index.failures):
        first = index.failures.iloc[0]
        warnings.warn(
            f"{len(index.failures)} files are not in the index, the first: {first['path']}: "
            f"{first['reason']}; all are listed in {index.folder / 'failures.csv'}",
            stacklevel=3,
        )


def _warn_of_region_failures(index: Index) -> None:
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
