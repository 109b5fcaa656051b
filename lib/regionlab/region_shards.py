"""Find and encode the regions of an index's images in shards on disk, as `shards.py` does images.

A shard is a folder with `regions.parquet` (`COLUMNS`), `vectors.npy` (r, d) float32 and
`images.parquet`: `reason`, empty unless the image could not be read, and `seconds` of each
image from its row on. A shard that exists is whole.
"""

import hashlib
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from regionlab.embedding import Encoder
from regionlab.images import ImageError, read_image_and_digest
from regionlab.index import Index
from regionlab.masking import Everything, Region, Segmenter
from regionlab.progress import progress
from regionlab.region_files import COLUMNS
from regionlab.regions import encode_regions


class Visit(NamedTuple):
    """What came of one image: lines of the table, a vector each, and why not, if not."""

    lines: list[tuple]
    vectors: np.ndarray
    reason: str
    seconds: float


def write_shards(
    index: Index,
    segmenter: Segmenter,
    encoder: Encoder,
    folder: Path,
    *,
    encoding: str,
    everything: Everything,
    shard_size: int,
) -> None:
    """Find and encode the regions of the images that no shard in `folder` holds yet.

    A shard with an image that could not be read is done again: it may be back.
    """
    n = len(index)
    starts = [start for start in range(0, n, shard_size) if not _is_done(_path(folder, start))]
    rows = [row for start in starts for row in range(start, min(start + shard_size, n))]
    visits = (_visit(index, row, segmenter, encoder, encoding, everything) for row in rows)
    visits = progress(visits, desc="find regions", total=len(rows))
    for start in starts:
        _save(_path(folder, start), list(islice(visits, min(shard_size, n - start))))
    for _ in visits:  # lets the progress come to its end
        pass


def join_shards(folder: Path) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """Return the regions, their vectors and the images' reasons and seconds of all shards."""
    shards = sorted(folder.glob("*.shard"))
    regions, images = (
        pd.concat([pd.read_parquet(shard / name) for shard in shards], ignore_index=True)
        for name in ("regions.parquet", "images.parquet")
    )
    vectors = np.concatenate([np.load(shard / "vectors.npy") for shard in shards])
    return regions, vectors, images


def _path(folder: Path, start: int) -> Path:
    return folder / f"{start:012d}.shard"


def _is_done(shard: Path) -> bool:
    return shard.exists() and not pd.read_parquet(shard / "images.parquet")["reason"].any()


def _visit(
    index: Index,
    row: int,
    segmenter: Segmenter,
    encoder: Encoder,
    encoding: str,
    everything: Everything,
) -> Visit:
    began = time.perf_counter()
    vectors, lines, reason = np.empty((0, encoder.dim), np.float32), [], ""
    try:
        image = _read_as_indexed(index, row)
    except ImageError as e:
        reason = e.reason
    else:
        regions = segmenter.segment_everything(image, settings=everything)
        masks = [region.mask for region in regions]
        vectors = encode_regions(encoder, image, masks, encoding=encoding)
        lines = [_describe(region, index.images["image_id"].iloc[row], row) for region in regions]
    return Visit(lines, vectors, reason, time.perf_counter() - began)


def _read_as_indexed(index: Index, row: int) -> np.ndarray:
    path = index.path(row)
    image, digest = read_image_and_digest(path)
    if digest != index.images["sha256"].iloc[row]:
        raise ImageError(path, "changed since it was indexed")
    return image


def _describe(region: Region, image_id: str, row: int) -> tuple:
    """Return the region's line of the table, in the order of `COLUMNS`."""
    counts = region.rle["counts"]
    region_id = hashlib.sha256(f"{image_id} {counts}".encode()).hexdigest()[:16]
    scores = (region.quality, region.stability)
    return (region_id, image_id, row, *region.box, region.area, *scores, counts)


def _save(shard: Path, visits: list[Visit]) -> None:
    partial, stale = shard.with_suffix(".partial"), shard.with_suffix(".stale")
    if shard.exists():  # moved first: deleted in place, it would be there and not whole
        shutil.rmtree(stale, ignore_errors=True)
        shard.rename(stale)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    lines = [line for visit in visits for line in visit.lines]
    table = pd.DataFrame(lines, columns=list(COLUMNS)).astype(COLUMNS)
    table.to_parquet(partial / "regions.parquet")
    np.save(partial / "vectors.npy", np.concatenate([visit.vectors for visit in visits]))
    images = [(visit.reason, visit.seconds) for visit in visits]
    pd.DataFrame(images, columns=["reason", "seconds"]).to_parquet(partial / "images.parquet")
    partial.rename(shard)
