"""Shards: what came of some images, saved as work goes on, so that killed work is not lost.

A shard is a folder with `images.parquet` (`row` in the shard, `sha256`, `reason` why there is
nothing, empty if there is, `seconds`; with the images' vectors also `width` and `height`) and
`vectors.npy` (m, d) float32; with regions also `regions.parquet`. A shard that exists is whole.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.data.images import ImageError, read_image_and_digest
from regionlab.index.index import Index
from regionlab.index.staging import staged_folder
from regionlab.index.tables import (
    REGION_COLUMNS,
    StackedVectors,
    name_region,
    open_vectors,
    write_vectors,
)
from regionlab.util.errors import name_image, named_memory_error
from regionlab.util.progress import progress

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder
    from regionlab.models.pipeline import ImageBatch
    from regionlab.models.segmenter import MaskGeneratorConfig, Segmenter

REGION_LOG = {"sha256": "str", "reason": "str", "seconds": "float64"}
IMAGE_LOG = REGION_LOG | {"width": "int64", "height": "int64"}


class Shard(NamedTuple):
    """What came of some images: a line each in `log`; of those without a reason a vector each.

    With `regions` a vector for each of these, `row` being that of the image in `log`.
    """

    log: pd.DataFrame
    vectors: np.ndarray
    regions: pd.DataFrame | None = None


class Found(NamedTuple):
    """What is known of images: of an index, or of the shards of work that was cut off.

    Attributes
    ----------
    log
        `REGION_LOG` or `IMAGE_LOG`, a line for each image that was looked at.
    table
        `row` of the image in `log`, ascending, of each vector; of regions `REGION_COLUMNS`.
    vectors
        (r, d) float32, one a line of the table.
    """

    log: pd.DataFrame
    table: pd.DataFrame
    vectors: np.ndarray | StackedVectors


# ---- on disk


def find_missing(
    folder: Path, rows: np.ndarray, shard_size: int, *, retry: bool = False
) -> dict[int, np.ndarray]:
    """Return the rows of each shard that is not there, or `retry` and has failures, by start."""
    starts = range(0, len(rows), shard_size)
    shards = {start: folder / f"{start:012d}.shard" for start in starts}
    done = {start for start, shard in shards.items() if shard.exists()}
    if retry:
        done = {s for s in done if not _read(shards[s], "images")["reason"].any()}
    return {start: rows[start : start + shard_size] for start in starts if start not in done}


def save_shard(folder: Path, start: int, shard: Shard) -> None:
    """Put a shard in its place in one step, once all of it is on the disk."""
    with staged_folder(folder / f"{start:012d}.shard") as new:
        shard.log.assign(row=np.arange(len(shard.log))).to_parquet(new / "images.parquet")
        write_vectors(new / "vectors.npy", [shard.vectors], shard.vectors.shape)
        if shard.regions is not None:
            shard.regions.to_parquet(new / "regions.parquet")


def read_shards(folders: list[Path], dim: int, *, regions: bool) -> Found:
    """Return what the shards in some folders hold, in the order of their images."""
    nothing = know_nothing(dim, regions=regions)
    logs, tables, parts, start = [nothing.log], [nothing.table], [], 0
    for shard in (path for folder in folders for path in sorted(folder.glob("*.shard"))):
        log = _read(shard, "images")
        if regions:
            table = _read(shard, "regions")
            own = pd.Index(log["row"]).get_indexer(table["row"])
        else:
            own = np.flatnonzero(log["reason"] == "")
            table = pd.DataFrame({"row": own})
        logs.append(log[list(nothing.log)])
        tables.append(table.assign(row=start + own))
        parts.append((len(table), partial(open_vectors, shard / "vectors.npy")))
        start += len(log)
    log, table = (pd.concat(frames, ignore_index=True) for frames in (logs, tables))
    return Found(log, table, StackedVectors(parts, dim))


def know_nothing(dim: int, *, regions: bool) -> Found:
    """Return what is known before anything was looked at."""
    columns = (REGION_LOG, REGION_COLUMNS) if regions else (IMAGE_LOG, {"row": "int64"})
    log, table = (pd.DataFrame(columns=list(kinds)).astype(kinds) for kinds in columns)
    return Found(log, table, np.empty((0, dim), np.float32))


def _read(shard: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(shard / f"{name}.parquet")


# ---- of images


def write_image_shards(
    collection: Collection,
    rows: np.ndarray,
    encoder: "Encoder",
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
            save_shard(folder, start, pack_images(embedded, encoder.dim, seconds))
        for _ in items:  # lets the progress come to its end
            pass


def list_paths(collection: Collection, rows: np.ndarray) -> list[Path]:
    """Return the absolute paths of some images of a collection."""
    return [collection.root / path for path in collection.images["path"].iloc[rows]]


def take_apart(batches: Iterator["ImageBatch"]) -> Iterator[tuple]:
    """Take batches apart: (vector, width, height, digest, reason) of each image in order."""
    for batch in batches:
        read = zip(batch.rows, batch.vectors, batch.sizes, batch.digests, strict=True)
        items = {row: (vector, *size, digest, "") for row, vector, size, digest in read}
        items |= {row: (None, -1, -1, "", error.reason) for row, error in batch.failures}
        yield from (items[row] for row in sorted(items))


def pack_images(items: list[tuple], dim: int, seconds: float) -> Shard:
    """Return the shard of images, as `take_apart` yields them, and of the time they took."""
    vectors, width, height, digests, reasons = zip(*items, strict=True)
    texts = [reason.encode("utf-8", "backslashreplace").decode() for reason in reasons]
    log = {"sha256": digests, "reason": texts, "seconds": seconds / len(items)}
    log = pd.DataFrame(log | {"width": width, "height": height}).astype(IMAGE_LOG)
    held = [vector for vector in vectors if vector is not None]
    return Shard(log, np.array(held, np.float32).reshape(-1, dim))


# ---- of regions


def write_region_shards(
    index: Index,
    rows: np.ndarray,
    segmenter: "Segmenter",
    encoder: "Encoder",
    folder: Path,
    *,
    encoding: str,
    everything: "MaskGeneratorConfig",
    shard_size: int,
) -> None:
    """Find and encode the regions of images (`rows` of the index) that no shard holds yet.

    A shard with an image that could not be read is done again: it may be back.
    """
    from regionlab.models.pipeline import map_in_threads
    from regionlab.regions.encodings import encode_regions

    own = iter([segmenter])  # of one thread; the others need a memory of images of their own

    def make_visit() -> Callable[[int], tuple]:
        finder = next(own, None) or segmenter.share(1)
        find = partial(finder.segment_everything, settings=everything)
        encode = partial(encode_regions, encoder, encoding=encoding, strict=False)
        return lambda row: _find_regions(index, row, find, encode, encoder.dim)

    missing = find_missing(folder, rows, shard_size, retry=True)
    rows = (int(row) for shard in missing.values() for row in shard)
    visits = map_in_threads(make_visit, rows, encoder.device)
    visits = progress(visits, desc="find regions", total=sum(map(len, missing.values())))
    for start, shard in missing.items():
        lines, vectors, reasons, seconds = zip(*islice(visits, len(shard)), strict=True)
        digests = index.images["sha256"].to_numpy()[shard]
        log = pd.DataFrame({"sha256": digests, "reason": reasons, "seconds": seconds})
        lines = [(*line, own) for own, part in enumerate(lines) for line in part]
        columns = [*(name for name in REGION_COLUMNS if name != "row"), "row"]
        table = pd.DataFrame(lines, columns=columns)[list(REGION_COLUMNS)].astype(REGION_COLUMNS)
        save_shard(folder, start, Shard(log.astype(REGION_LOG), np.concatenate(vectors), table))
    for _ in visits:  # lets the progress come to its end
        pass


def _find_regions(
    index: Index, row: int, find: Callable, encode: Callable, dim: int
) -> tuple[list[tuple], np.ndarray, str, float]:
    """Return lines of the table but for `row`, vectors, why there are none, and seconds."""
    from regionlab.models.encoder import NO_DIRECTION

    began = time.perf_counter()
    vectors, lines, reason = np.empty((0, dim), np.float32), [], ""
    try:
        path = index.path(row)
        image, digest = read_image_and_digest(path)
        if digest != index.images["sha256"].iloc[row]:
            raise ImageError(path, "changed since it was indexed")
        with named_memory_error(name_image(image.shape)):
            regions = find(image)
            vectors = encode(image, (region.mask for region in regions))  # one at a time
        name = index.images["image_id"].iloc[row]
        for region in regions:
            counts = region.rle["counts"]
            scores = (region.area, region.quality, region.stability)
            lines.append((name_region(name, counts), name, *region.box, *scores, counts))
    except ImageError as e:
        reason = e.reason
    except MemoryError as e:
        vectors, lines, reason = vectors[:0], [], str(e) or "out of memory"
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        reason = f"{np.sum(~good)} of its {len(good)} regions left out: {NO_DIRECTION}"
        vectors, lines = vectors[good], list(compress(lines, good))
    return lines, vectors, reason, time.perf_counter() - began
