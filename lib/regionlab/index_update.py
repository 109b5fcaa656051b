"""Change an index as its images change: what is still the same is not embedded again."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regionlab.collection import Collection
from regionlab.embedding import Encoder
from regionlab.index import Index, open_index, warn_of_failures
from regionlab.index_files import IndexFolderError, Known
from regionlab.index_images import check_sizes, make_images
from regionlab.index_lock import claim_index
from regionlab.index_regions import make_regions
from regionlab.masking import Segmenter
from regionlab.progress import progress
from regionlab.region_files import get_policy
from regionlab.region_merge import take_over_regions
from regionlab.weights import hash_file
from regionlab.workshop import IMAGES, finish_swap, get_workshop, open_workshop, plan_build

REGION_SHARD = 128  # images between two savings, when regions are found


def update_index(
    index: Index,
    collection: Collection,
    encoder: Encoder,
    *,
    segmenter: Segmenter | None = None,
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
    ValueError
        If a segmenter is needed, or not one image can be read.
    IndexFolderError
        If encoder or segmenter are not those of the index, it was changed since it was opened,
        or another process is writing it.
    """
    if not len(collection):
        raise ValueError(f"{collection!r} has no images to index")
    sizes = check_sizes(batch_size, workers, shard_size)
    with _claimed(index) as current:
        plan = plan_build(collection, encoder)
        digests = _hash_files(collection, workers)
        rows = match_images(current.images, collection.images["image_id"], digests)
        changed = _change(current, collection, rows, plan, encoder, segmenter, sizes)
    warn_of_failures(changed)
    return changed


def add_images(
    index: Index,
    collection: Collection,
    encoder: Encoder,
    *,
    segmenter: Segmenter | None = None,
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
    ValueError
        If the root is another one.
    """
    if collection.root.resolve() != index.root:
        raise ValueError(
            f"the images of the index lie in {index.root}, those to add in {collection.root}: "
            "load them from the same folder, or build an index of their own"
        )
    sizes = check_sizes(batch_size, workers, shard_size)
    with _claimed(index) as current:
        merged = _merge(as_collection(current), collection)
        rows = np.concatenate([np.arange(len(current)), np.full(len(merged) - len(current), -1)])
        plan = _extend_plan(current, "add", plan_build(merged, encoder))
        changed = _change(current, merged, rows, plan, encoder, segmenter, sizes)
    warn_of_failures(changed)
    return changed


def remove_images(index: Index, image_ids: Iterable[str]) -> Index:
    """Take images out of an index, with their regions; the files stay where they are.

    `build_index` and `update_index` put them back, if their collection has them.

    Raises
    ------
    KeyError
        If an id is not in the index.
    ValueError
        If no image would be left.
    IndexFolderError
        If the index was changed since it was opened, or another process is writing it.
    """
    gone = index.images["image_id"].iloc[index.rows_of(image_ids)]
    with _claimed(index) as current:
        rows = np.flatnonzero(~current.images["image_id"].isin(gone))
        if not len(rows):
            raise ValueError(f"all images of {index.folder} would go: remove the folder instead")
        held = as_collection(current)
        kept = replace(held, images=held.images.iloc[rows].reset_index(drop=True))
        plan = _extend_plan(current, "remove", sorted(gone))
        return _change(current, kept, rows, plan)


def as_collection(index: Index) -> Collection:
    """Return the images of an index as a collection; what failed is skipped, with its id."""
    return Collection(
        index.root,
        index.images.drop(columns="sha256"),
        name=index.manifest["collection"],
        split=index.manifest["split"],
        skipped=index.failures,
    )


def _merge(held: Collection, collection: Collection) -> Collection:
    """Add the images that are not held; one that could not be read gets another try."""
    more = collection.images[~collection.images["image_id"].isin(held.images["image_id"])]
    failed = held.skipped[~held.skipped["image_id"].isin(more["image_id"])]
    skipped = pd.concat([failed, collection.skipped.assign(image_id="")]).drop_duplicates()
    images = pd.concat([held.images, more], ignore_index=True)
    return replace(held, images=images, skipped=skipped)


def match_images(images: pd.DataFrame, image_ids: pd.Series, digests: np.ndarray) -> np.ndarray:
    """Return for each file the row of an index's image with the same contents, -1 for none.

    Of several the one with the same id is taken, else the first.

    Parameters
    ----------
    images
        Table of the index.
    image_ids
        (n,) str.
    digests
        (n,) SHA-256 of each file; empty where it cannot be read.
    """
    by_id = pd.Index(images["image_id"]).get_indexer(image_ids)
    held = images["sha256"].to_numpy()
    first = images.drop_duplicates("sha256")
    by_digest = pd.Index(first["sha256"]).get_indexer(digests)
    by_digest = np.where(by_digest < 0, -1, first.index.to_numpy()[by_digest])
    return np.where((by_id >= 0) & (held[by_id] == digests), by_id, by_digest)


def _hash_files(collection: Collection, workers: int) -> np.ndarray:
    paths = [collection.root / path for path in collection.images["path"]]
    with ThreadPoolExecutor(workers) as pool:
        digests = progress(pool.map(_hash_or_nothing, paths), desc="hash files", total=len(paths))
        return np.array(list(digests), dtype=object)


def _hash_or_nothing(path: Path) -> str:
    try:
        return hash_file(path)
    except (OSError, ValueError):  # whoever reads it next says why
        return ""


def _extend_plan(index: Index, *changes: object) -> str:
    text = json.dumps([index.manifest["plan"], *changes])
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _claimed(index: Index) -> Iterator[Index]:
    """Give the index as it is on disk now, and keep others from writing it meanwhile."""
    with claim_index(index.folder):
        finish_swap(index.folder)
        yield open_index(index.folder)
        shutil.rmtree(get_workshop(index.folder, IMAGES), ignore_errors=True)


def _change(
    index: Index,
    collection: Collection,
    rows: np.ndarray,
    plan: str,
    encoder: Encoder | None = None,
    segmenter: Segmenter | None = None,
    sizes: dict[str, Any] | None = None,
) -> Index:
    """Put an index of `collection` in the place of `index`, and take over its `rows`."""
    made, folder = index.manifest, index.folder
    if (rows < 0).any():
        _check_models(index, encoder, segmenter)
    same = plan == made["plan"] and index.root == collection.root.resolve()
    if same and np.array_equal(rows, np.arange(len(index))):
        return index
    marker = [index.id, made["regions"] and made["regions"]["id"], plan, sizes]
    work = open_workshop(folder, IMAGES, json.dumps(marker))
    model = {key: made[key] for key in ("space", "model", "dim")}
    known = Known(index.images, index.vectors, rows, model, made["seconds"])
    target = work / ("ready" if index.regions is None else "images")
    make_images(target, collection, encoder, known, folder=folder, plan=plan, sizes=sizes)
    if index.regions is not None:
        new = replace(open_index(target), root=collection.root.resolve())
        read = collection.images["image_id"].isin(new.images["image_id"])
        retry = segmenter is not None
        regions = take_over_regions(index, new.images, rows[read], retry=retry)
        make_regions(new, segmenter, encoder, work, get_policy(made), regions, REGION_SHARD)
    finish_swap(folder)
    return open_index(folder)


def _check_models(index: Index, encoder: Encoder, segmenter: Segmenter | None) -> None:
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
        raise ValueError(
            f"the index {index.folder} has regions by {made['segmenter']['model']}, and there are "
            "images without: add segmenter=load_segmenter(...) of the same model"
        )
    if made and made["segmenter"] != segmenter.fingerprint:
        raise IndexFolderError(
            f"the regions of the index {index.folder} are by {made['segmenter']['model']} in "
            f"{made['segmenter']['precision']}, this is {segmenter!r}: load the same, or add "
            "regions anew"
        )
