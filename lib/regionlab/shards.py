"""Embed a collection in shards on disk, so that a build that was killed goes on where it stopped.

A shard holds `vectors` (m, d) float32, `sizes` (m, 2) int64, `digests` and `reasons` (m,) str of
the images from its row on, and the `seconds` it took; an image that could not be read has a
vector of zeros, no digest and a reason. A shard that exists is whole.
"""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from regionlab.collection import Collection
from regionlab.embedding import Encoder, ImageBatch
from regionlab.progress import progress


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
    starts = [s for s in range(0, len(rows), shard_size) if not _path(folder, s).exists()]
    shards = [rows[start : start + shard_size] for start in starts]
    names = collection.images["path"]
    paths = (collection.root / names.iloc[row] for shard in shards for row in shard)
    total = sum(map(len, shards))
    with closing(encoder.encode_stream(paths, batch_size=batch_size, workers=workers)) as batches:
        items = progress(_one_by_one(batches), desc="embed images", total=total)
        for start, shard in zip(starts, shards, strict=True):
            began = time.perf_counter()
            embedded = list(islice(items, len(shard)))
            _save(_path(folder, start), embedded, encoder.dim, time.perf_counter() - began)
        for _ in items:  # lets the progress come to its end
            pass


def read_shards(folder: Path, name: str) -> Iterator[np.ndarray]:
    """Yield one of the arrays of each shard, in the order of the images."""
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as shard:
            yield shard[name]


def _path(folder: Path, start: int) -> Path:
    return folder / f"{start:012d}.npz"


def _one_by_one(batches: Iterator[ImageBatch]) -> Iterator[tuple]:
    """Take batches apart: (vector, size, digest, reason) of each image in order."""
    for batch in batches:
        read = zip(batch.rows, batch.vectors, batch.sizes, batch.digests, strict=True)
        items = {row: (vector, size, digest, "") for row, vector, size, digest in read}
        items |= {row: (None, (-1, -1), "", error.reason) for row, error in batch.failures}
        yield from (items[row] for row in sorted(items))


def _save(path: Path, items: list[tuple], dim: int, seconds: float) -> None:
    vectors, sizes, digests, reasons = zip(*items, strict=True)
    blank = np.zeros(dim, np.float32)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        np.savez(
            file,
            vectors=np.stack([blank if v is None else v for v in vectors]),
            sizes=np.array(sizes, np.int64),
            digests=np.array(digests, str),
            reasons=np.array(reasons, str),
            seconds=np.array([seconds]),
        )
        file.flush()
        os.fsync(file.fileno())  # a shard that exists is whole, even after a power failure
    temporary.replace(path)
