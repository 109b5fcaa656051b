"""Change an index to that of a collection: what is still the same by contents is taken over.

The one way by which indexes come into being: `build_index`, on several machines too, and the
functions of `index_update` say what to take over from where, and this does it. All is made in a
workshop beside the index, which takes its place in one move, regions included.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.index.index import Index, open_index
from regionlab.index.regions import is_made_by, make_regions, read_source
from regionlab.index.shards import read_salvage, write_shards
from regionlab.index.staging import (
    IMAGES,
    SHARDS,
    finish_swap,
    hand_over_regions,
    keep_previous,
    open_shards,
    open_workshop,
    staged_folder,
)
from regionlab.index.stamps import Look, Stamp, hash_unknown
from regionlab.index.tables import Reused, get_policy, write_index_files
from regionlab.index.vectors import StackedVectors
from regionlab.models.encoder import Encoder
from regionlab.models.pipeline import resolve_batch_size
from regionlab.models.segmenter import Segmenter
from regionlab.util.progress import say


def make_images(
    target: Path,
    collection: Collection,
    encoder: Encoder | None,
    known: Reused,
    *,
    shards: Path,
    folder: Path,
    plan: str,
    sizes: dict[str, Any],
    stamps: list[Stamp],
    write: Callable[..., None] = write_shards,
) -> None:
    """Make the files of an index without regions in the folder `target` of a workshop.

    Parameters
    ----------
    collection, shards, folder, plan, stamps
        As for `write_index_files`.
    encoder
        Embeds the images that are not known; None if all are.
    known
        Images that need no embedding.
    sizes
        Of `check_sizes`.
    write
        Writes the shards that are missing: `write_shards`, or another that takes the same.
    """
    rest = np.flatnonzero(known.rows < 0)
    if len(rest):
        batch_size = resolve_batch_size(encoder, sizes["batch_size"])
        write(collection, rest, encoder, shards, **sizes | {"batch_size": batch_size})
    with staged_folder(target) as new:
        write_index_files(
            new, collection, shards, folder=folder, plan=plan, known=known, stamps=stamps
        )


def check_sizes(batch_size: int | str, workers: int, shard_size: int) -> dict[str, Any]:
    """Return the three for `make_images`, the shard rounded up to whole batches.

    Raises
    ------
    ValueError
        If one is below 1, or the batch size is another word than "auto".
    """
    batch = 1 if batch_size == "auto" else batch_size
    if isinstance(batch, str) or min(batch, workers, shard_size) < 1:
        raise ValueError(
            'batch_size (or "auto"), workers and shard_size must be at least 1, got '
            f"{batch_size!r}, {workers}, {shard_size}"
        )
    shard_size += -shard_size % batch
    return {"batch_size": batch_size, "workers": workers, "shard_size": shard_size}


def describe_model(encoder: Encoder) -> dict[str, Any]:
    """Return what the manifest says of the model of the vectors."""
    return {"space": encoder.space, "model": encoder.fingerprint, "dim": encoder.dim}


REGION_SHARD = 128  # images between two savings, when regions are found


@dataclass(frozen=True)
class Change:
    """What an index is to become.

    Attributes
    ----------
    folder
        Its place.
    collection
        All images that it is to have, in their order, storable.
    plan
        Of `plan_build`, to know it again.
    look
        The collection's files.
    encoder
        Embeds the images that are new; None if there are none.
    segmenter
        Finds their regions; without one they are listed as pending.
    policy
        How regions are made; None as the source's were, if it has any.
    sizes
        Of `check_sizes`.
    write
        Writes the shards of images: `write_shards`, or another that takes the same.
    retry
        Whether regions that could not be found are tried again.
    fresh
        Whether to forget what cut off work has left.
    """

    folder: Path
    collection: Collection
    plan: str
    look: Look
    encoder: Encoder | None = None
    segmenter: Segmenter | None = None
    policy: dict[str, Any] | None = None
    sizes: dict[str, Any] = field(default_factory=lambda: {"workers": 2})
    write: Callable[..., None] = write_shards
    retry: bool = False
    fresh: bool = False


def make_change(change: Change, source: Index | None, rows: np.ndarray, replaced: Index | None):
    """Put the index that is wanted in its place, and return it.

    Parameters
    ----------
    source
        An index by the same model, from which to take over; None for none.
    rows
        (n,) int64, for each image of the collection its row there, -1 to embed it.
    replaced
        The index in this place now, None if there is none.
    """
    work = open_workshop(
        change.folder, IMAGES, _describe_task(change, source, rows), fresh=change.fresh
    )
    model = _find_model(change, source)
    shards, others = open_shards(work, SHARDS, model)
    known = _find_known(change, source, rows, others, model)
    if source is not None:
        say(describe_change(source, change.collection, rows))
    policy = change.policy
    if policy is None and source is not None and source.regions is not None:
        policy = get_policy(source.manifest)
    taken = source is not None and source.regions is not None and is_made_by(source, policy)
    lost = replaced is not None and replaced.regions is not None
    if lost and change.segmenter is None and not (taken and (rows >= 0).any()):
        keep_previous(work)
    target = work / ("ready" if policy is None else "images")
    make_images(
        target,
        change.collection,
        change.encoder,
        known,
        shards=shards,
        folder=change.folder,
        plan=change.plan,
        sizes=change.sizes,
        stamps=change.look.stamps,
        write=change.write,
    )
    if policy is not None:
        new = replace(open_index(target), root=change.collection.root.resolve())
        read = change.collection.images["image_id"].isin(new.images["image_id"]).to_numpy()
        rows = rows[read] if taken else np.full(read.sum(), -1)
        make_regions(
            new,
            work,
            policy,
            read_source(source) if taken else None,
            rows,
            change.segmenter,
            change.encoder,
            shard_size=REGION_SHARD,
            retry=change.retry,
            unchanged=source.folder if taken else None,
        )
    if change.segmenter is None:
        hand_over_regions(change.folder)
    finish_swap(change.folder)
    return open_index(change.folder)


def describe_change(source: Index, collection: Collection, rows: np.ndarray) -> str:
    """Say in one line what an index keeps and what not, as "1 new, 40 kept"."""
    ids = collection.images["image_id"]
    held = source.images["image_id"]
    fresh = ids[rows < 0]
    counts = {"new": (~fresh.isin(held)).sum(), "kept": (rows >= 0).sum()}
    others = {
        "changed": fresh.isin(held).sum(),
        "removed": len(set(range(len(held))) - set(rows)) - fresh.isin(held).sum(),
    }
    counts |= {what: count for what, count in others.items() if count > 0}
    return f"{collection.title}: " + ", ".join(f"{n} {what}" for what, n in counts.items())


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
    by_digest = match_digests(images["sha256"], digests)
    return np.where((by_id >= 0) & (held[by_id] == digests), by_id, by_digest)


def match_digests(held: pd.Series, digests: np.ndarray) -> np.ndarray:
    """Return for each digest its first row in `held`, -1 for none; an empty one has none."""
    first = held[held != ""].drop_duplicates()
    rows = pd.Index(first).get_indexer(digests)
    return np.where(rows < 0, -1, first.index.to_numpy(np.int64)[rows] if len(first) else -1)


def _describe_task(change: Change, source: Index | None, rows: np.ndarray) -> str:
    """Return what decides the shards and their order, for a task that was cut off to go on."""
    digest = hashlib.sha256(rows.astype(np.int64).tobytes())
    for row in np.flatnonzero(rows < 0):
        digest.update(f"{change.look.stamps[row]} {change.look.digests[row]}\n".encode())
    origin = source and [source.id, source.regions is not None and source.regions_id]
    shard = change.sizes.get("shard_size")
    return json.dumps([change.plan, shard, origin, change.policy, digest.hexdigest()])


def _find_model(change: Change, source: Index | None) -> dict[str, Any]:
    if source is None:
        return describe_model(change.encoder)
    return {key: source.manifest[key] for key in ("space", "model", "dim")}


def _find_known(
    change: Change, source: Index | None, rows: np.ndarray, others: list[Path], model: dict
) -> Reused:
    """Return what an index and the salvage of cut off work hold of the collection's images."""
    dim = model["dim"]
    images, vectors, seconds = read_salvage(others, dim)
    if source is not None:
        unchanged = np.array_equal(rows, np.arange(len(source)))
        file = source.folder / "image_vectors.npy" if unchanged else None
        known = Reused(source.images, source.vectors, rows, model, source.manifest["seconds"], file)
        if not len(images) or (rows >= 0).all():
            return known
        held = pd.concat([source.images[list(images)], images], ignore_index=True)
        own = len(source), lambda: source.vectors
        vectors = StackedVectors([own, *vectors.parts], dim)
        seconds += source.manifest["seconds"]
    else:
        held = images
    if len(images):
        look = hash_unknown(change.collection, change.look, change.sizes["workers"])
        found = match_digests(images["sha256"], look.digests)
        offset = len(held) - len(images)
        rows = np.where((rows < 0) & (found >= 0), found + offset, rows)
    return Reused(held, vectors, rows, model, seconds)
