"""Index: the vectors of a collection's images on disk, with what is needed to trust them.

A folder with `manifest.json`, `images.parquet`, `image_vectors.npy` and `failures.csv`; and with
`regions.parquet`, `region_vectors.npy` and `region_failures.csv` where regions were added. It is
built in a hidden folder beside its place and put there in one move, so a build that was killed
goes on where it stopped and an index that can be opened is whole.
"""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regionlab.collection import Collection
from regionlab.embedding import Encoder
from regionlab.index_files import IndexFolderError, know_nothing
from regionlab.index_images import check_sizes, describe_model, make_images
from regionlab.index_lock import claim_index
from regionlab.index_reading import Index, open_index
from regionlab.shards import write_shards
from regionlab.workshop import (
    IMAGES,
    check_replaceable,
    finish_swap,
    get_workshop,
    has_leftovers,
    open_workshop,
    plan_build,
)


def build_index(
    collection: Collection,
    encoder: Encoder,
    folder: Path | str,
    *,
    batch_size: int | str = 64,
    workers: int = 2,
    shard_size: int = 2048,
    fresh: bool = False,
) -> Index:
    """Embed all images of a collection into an index on disk, or go on with one begun.

    Images that cannot be read are listed in the index's failures, with a warning, and never
    stop the build. An index of the same files and table by the same model that is there already
    is opened as it is, with its regions; files count as the same by name, size and time of change.

    Parameters
    ----------
    collection
        Which images.
    encoder
        Which vectors.
    folder
        Where the index goes. An index that lies there is replaced, its regions included, once
        the new one is complete; `update_index` keeps what is still the same.
    batch_size, workers
        As for `Encoder.encode_stream`; "auto" measures the batch size once, if there is work.
    shard_size
        Images between two savings, what a killed build has to do again at most; rounded up to
        whole batches.
    fresh
        Embed everything again, whatever is there.

    Raises
    ------
    ValueError
        If the collection is empty, or not one of its images can be read.
    IndexFolderError
        If `folder` holds something that is not part of an index, another process is writing
        it, or the disk is full or cannot be written to; an index that was there is as it was.
    """
    sizes = check_sizes(batch_size, workers, shard_size)
    index = make_index(collection, encoder, folder, sizes, fresh=fresh)
    warn_of_failures(index)
    return index


def make_index(
    collection: Collection,
    encoder: Encoder,
    folder: Path | str,
    sizes: dict[str, Any],
    *,
    fresh: bool,
    write: Callable[..., None] = write_shards,
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
    plan = plan_build(collection, encoder)
    reuse = not fresh and not has_leftovers(folder, IMAGES)
    index = _open_if_planned(folder, plan, collection.root) if reuse else None
    if index is None:
        with claim_index(folder):
            finish_swap(folder)
            index = None if fresh else _open_if_planned(folder, plan, collection.root)
            if index is None:
                marker = f"{plan} {sizes['shard_size']}"
                work = open_workshop(folder, IMAGES, marker, fresh=fresh)
                make_images(
                    work / "ready",
                    collection,
                    encoder,
                    know_nothing(len(collection), describe_model(encoder)),
                    folder=folder,
                    plan=plan,
                    sizes=sizes,
                    write=write,
                )
                finish_swap(folder)
                index = open_index(folder)
            shutil.rmtree(get_workshop(folder, IMAGES), ignore_errors=True)
    return index


def _open_if_planned(folder: Path, plan: str, root: Path) -> Index | None:
    try:
        index = open_index(folder)
    except IndexFolderError:
        return None
    same = index.manifest["plan"] == plan and index.root == root.resolve()
    return index if same else None


def warn_of_failures(index: Index) -> None:
    """Warn the caller's caller of files that are not in an index."""
    if len(index.failures):
        first = index.failures.iloc[0]
        warnings.warn(
            f"{len(index.failures)} files are not in the index, the first: {first['path']}: "
            f"{first['reason']}; all are listed in {index.folder / 'failures.csv'}",
            stacklevel=3,
        )
