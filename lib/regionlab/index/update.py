"""Change an index as its images change: what is still the same is not embedded again."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.index.build import warn_of_failures
from regionlab.index.change import Change, check_sizes, make_change, match_images
from regionlab.index.index import Index, open_index
from regionlab.index.sources import (
    Look,
    hash_build,
    hash_unknown,
    look_at_files,
    make_storable,
)
from regionlab.index.staging import IMAGES, finish_swap, get_staging, lock_index
from regionlab.index.tables import IndexFolderError
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder
    from regionlab.models.segmenter import Segmenter


def update_index(
    index: Index,
    collection: Collection,
    encoder: "Encoder",
    *,
    segmenter: "Segmenter | None" = None,
    batch_size: int | str = 64,
    workers: int = 2,
    shard_size: int = 2048,
) -> Index:
    """Make an index that of a collection as it is now, embedding what is new or has changed.

    Files are compared by their contents (SHA-256), so one that was only touched, renamed or
    moved keeps its vector, and its regions. Images that the collection no longer has are
    dropped. Killed anywhere, the same call goes on where it stopped; until it is done the index
    stays as it was.

    Parameters
    ----------
    index
        Which index.
    collection
        All images that it is to have, in their order.
    encoder
        That of the index, in the same precision.
    segmenter
        Finds the regions of the images embedded, with the settings and the encoding of the
        index's own; needed if it has regions.
    batch_size, workers, shard_size
        As for `build_index`.

    Raises
    ------
    InputError
        If a segmenter is needed, or not one image can be read.
    IndexFolderError
        If encoder or segmenter are not those of the index, it was changed since it was opened,
        or another process is writing it.
    """
    if not len(collection):
        raise InputError(f"{collection!r} has no images to index")
    sizes = check_sizes(batch_size, workers, shard_size)
    collection = make_storable(collection)
    with _claimed(index) as current:
        build_hash = hash_build(collection, encoder)
        look = hash_unknown(collection, look_at_files(collection), workers)
        rows = match_images(current.images, collection.images["image_id"], look.digests)
        changed = _change(current, collection, rows, build_hash, look, encoder, segmenter, sizes)
    warn_of_failures(changed)
    return changed


def add_images(
    index: Index,
    collection: Collection,
    encoder: "Encoder",
    *,
    segmenter: "Segmenter | None" = None,
    batch_size: int | str = 64,
    workers: int = 2,
    shard_size: int = 2048,
) -> Index:
    """Add a collection's images to an index; those whose id it holds already stay as they are.

    Parameters and errors are those of `update_index`.

    Parameters
    ----------
    collection
        Further images, under the index's own root.

    Raises
    ------
    InputError
        If the root is another one.
    """
    if collection.root.resolve() != index.root:
        raise InputError(
            f"the images of the index lie in {index.root}, those to add in {collection.root}: "
            "load them from the same folder, or build an index of their own"
        )
    sizes = check_sizes(batch_size, workers, shard_size)
    with _claimed(index) as current:
        merged = make_storable(_merge(as_collection(current), collection))
        rows = np.concatenate([np.arange(len(current)), np.full(len(merged) - len(current), -1)])
        build_hash = _extend_hash(current, "add", hash_build(merged, encoder))
        look = look_at_files(merged)
        changed = _change(current, merged, rows, build_hash, look, encoder, segmenter, sizes)
    warn_of_failures(changed)
    return changed


def remove_images(index: Index, image_ids: Iterable[str]) -> Index:
    """Take images out of an index, with their regions; the files stay where they are.

    `build_index` and `update_index` put them back, if their collection has them.

    Raises
    ------
    KeyError
        If an id is not in the index.
    InputError
        If no image would be left.
    IndexFolderError
        If the index was changed since it was opened, or another process is writing it.
    """
    gone = index.images["image_id"].iloc[index.rows_of(image_ids)]
    with _claimed(index) as current:
        rows = np.flatnonzero(~current.images["image_id"].isin(gone))
        if not len(rows):
            raise InputError(f"all images of {index.folder} would go: remove the folder instead")
        held = as_collection(current)
        kept = replace(held, images=held.images.iloc[rows].reset_index(drop=True))
        build_hash = _extend_hash(current, "remove", sorted(gone))
        return _change(current, kept, rows, build_hash, look_at_files(kept))


def as_collection(index: Index) -> Collection:
    """Return the images of an index as a collection; what failed is skipped, with its id."""
    return Collection(
        index.root,
        index.images.drop(columns="sha256"),
        name=index.manifest["collection"],
        split=index.manifest["split"],
        skipped=index.failures,
        shown_as=index.manifest.get("title", ""),
    )


def _merge(held: Collection, collection: Collection) -> Collection:
    """Add the images that are not held; one that could not be read gets another try."""
    more = collection.images[~collection.images["image_id"].isin(held.images["image_id"])]
    failed = held.skipped[~held.skipped["image_id"].isin(more["image_id"])]
    skipped = pd.concat([failed, collection.skipped.assign(image_id="")]).drop_duplicates()
    images = pd.concat([held.images, more], ignore_index=True)
    return replace(held, images=images, skipped=skipped)


def _extend_hash(index: Index, *changes: object) -> str:
    text = json.dumps([index.manifest["plan"], *changes])
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _claimed(index: Index) -> Iterator[Index]:
    """Give the index as it is on disk now, and keep others from writing it meanwhile."""
    with lock_index(index.folder):
        finish_swap(index.folder)
        yield open_index(index.folder)
        shutil.rmtree(get_staging(index.folder, IMAGES), ignore_errors=True)


def _change(
    index: Index,
    collection: Collection,
    rows: np.ndarray,
    build_hash: str,
    look: Look,
    encoder: "Encoder | None" = None,
    segmenter: "Segmenter | None" = None,
    sizes: dict[str, Any] | None = None,
) -> Index:
    """Put an index of `collection` in the place of `index`, and take over its `rows`."""
    if (rows < 0).any():
        _check_models(index, encoder, segmenter)
    same = build_hash == index.manifest["plan"] and index.root == collection.root.resolve()
    missing = segmenter is not None and index.regions is not None and len(index.region_failures)
    if same and not missing and np.array_equal(rows, np.arange(len(index))):
        return index
    change = Change(
        index.folder, collection, build_hash, look, encoder, segmenter,
        sizes=sizes or {"workers": 2}, retry=segmenter is not None,
    )  # fmt: skip
    return make_change(change, index, rows, index)


def _check_models(index: Index, encoder: "Encoder", segmenter: "Segmenter | None") -> None:
    """Raise unless these models made the index: vectors of several must not be mixed."""
    index.check_encoder(encoder)
    made = index.manifest["regions"]
    models = [index.manifest["model"]] + ([made["model"]] if made else [])
    for model in models:
        if model != encoder.fingerprint:
            raise IndexFolderError(
                f"the index {index.folder} was made by {model['model']} in {model['precision']}, "
                f"this is {encoder!r}: load the same, or build another index"
            )
    if made and segmenter is None:
        raise InputError(
            f"the index {index.folder} has regions by {made['segmenter']['model']}, and there are "
            "images without: add segmenter=load_segmenter(...) of the same model"
        )
    if made and made["segmenter"] != segmenter.fingerprint:
        raise IndexFolderError(
            f"the regions of the index {index.folder} are by {made['segmenter']['model']} in "
            f"{made['segmenter']['precision']}, this is {segmenter!r}: load the same, or add "
            "regions anew"
        )
