"""Embed a collection in shards on disk, so that a build that was killed goes on where it stopped.

A shard holds `vectors` (m, d) float32, `sizes` (m, 2) int64, `digests` and `reasons` (m,) str of
the images from its row on, and the `seconds` it took; an image that could not be read has a
vector of zeros, no digest and a reason. A shard that exists is whole.
"""

import io
import os
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.index.vectors import StackedVectors
from regionlab.models.encoder import Encoder
from regionlab.models.pipeline import ImageBatch
from regionlab.util.progress import progress


def write_shards(
    collection: Collection,
    rows: np.ndarray,
    encoder: Encoder,
    folder: Path,
    *,
    batch_size: int,
    workers: int,
    shard_size: int,
) -> None:
    """Embed images that no shard in `folder` holds yet.

    Parameters
    ----------
    rows
        (n,) int64, which images of the collection, ascending.
    shard_size
        Images a shard: a multiple of `batch_size`, so that a batch never straddles two and a
        resumed build computes the very batches of one that ran through.
    """
    missing = find_missing(folder, rows, shard_size)
    paths = (path for shard in missing.values() for path in list_paths(collection, shard))
    total = sum(map(len, missing.values()))
    with closing(encoder.encode_stream(paths, batch_size=batch_size, workers=workers)) as batches:
        items = progress(take_apart(batches), desc="embed images", total=total)
        for start, shard in missing.items():
            began = time.perf_counter()
            embedded = list(islice(items, len(shard)))
            seconds = time.perf_counter() - began
            save_shard(folder, start, pack_shard(embedded, encoder.dim, seconds))
        for _ in items:  # lets the progress come to its end
            pass


def find_missing(folder: Path, rows: np.ndarray, shard_size: int) -> dict[int, np.ndarray]:
    """Return the rows of each shard that is not there yet, by its start."""
    starts = range(0, len(rows), shard_size)
    return {s: rows[s : s + shard_size] for s in starts if not _path(folder, s).exists()}


def list_paths(collection: Collection, rows: np.ndarray) -> list[Path]:
    """Return the absolute paths of some images of a collection."""
    return [collection.root / path for path in collection.images["path"].iloc[rows]]


def read_shards(folder: Path, name: str) -> Iterator[np.ndarray]:
    """Yield one of the arrays of each shard, in the order of the images."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as shard:
            yield shard[name]


def read_salvage(folders: list[Path], dim: int) -> tuple[pd.DataFrame, StackedVectors, float]:
    """Return what shards of builds that were cut off hold, to be known again by contents.

    Returns
    -------
    images
        `width`, `height` and `sha256` of each image; no digest where it could not be read.
    vectors
        (n, d) float32, theirs.
    seconds
        What they took.
    """
    paths = [path for folder in folders for path in sorted(folder.glob("*.npz"))]
    images, parts, seconds = [], [], 0.0
    for path in paths:
        with np.load(path) as shard:
            width, height = shard["sizes"].T
            held = {"width": width, "height": height, "sha256": shard["digests"]}
            images.append(pd.DataFrame(held).astype({"sha256": "str"}))
            seconds += float(shard["seconds"].sum())
        parts.append((len(images[-1]), partial(_read_vectors, path)))
    blank = pd.DataFrame({"width": [0], "height": [0], "sha256": [""]}).iloc[:0]
    images = pd.concat([blank, *images], ignore_index=True)
    return images, StackedVectors(parts, dim), seconds


def _read_vectors(path: Path) -> np.ndarray:
    with np.load(path) as shard:
        return shard["vectors"]


def _path(folder: Path, start: int) -> Path:
    return folder / f"{start:012d}.npz"


def take_apart(batches: Iterator[ImageBatch]) -> Iterator[tuple]:
    """Take batches apart: (vector, size, digest, reason) of each image in order."""
    for batch in batches:
        read = zip(batch.rows, batch.vectors, batch.sizes, batch.digests, strict=True)
        items = {row: (vector, size, digest, "") for row, vector, size, digest in read}
        items |= {row: (None, (-1, -1), "", error.reason) for row, error in batch.failures}
        yield from (items[row] for row in sorted(items))


def pack_shard(items: list[tuple], dim: int, seconds: float) -> bytes:
    """Return the file of a shard: its images, as `take_apart` yields them, and its time."""
    vectors, sizes, digests, reasons = zip(*items, strict=True)
    blank = np.zeros(dim, np.float32)
    file = io.BytesIO()
    np.savez(
        file,
        vectors=np.stack([blank if v is None else v for v in vectors]),
        sizes=np.array(sizes, np.int64),
        digests=np.array(digests, str),
        reasons=np.array(reasons, str),
        seconds=np.array([seconds]),
    )
    return file.getvalue()


def save_shard(folder: Path, start: int, data: bytes) -> None:
    """Put a shard in its place in one step, once all of it is on the disk."""
    path = _path(folder, start)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # a shard that exists is whole, even after a power failure
    temporary.replace(path)
