"""Find and encode the regions of an index's images in shards on disk, as `shards.py` does images.

A shard is a folder with `regions.parquet` (`REGION_COLUMNS`), `vectors.npy` (r, d) float32 and
`images.parquet`: of each image visited its `row` in the index, `sha256` of its file, `reason`,
empty unless the image has no regions for one, and `seconds`. A shard that exists is whole.
"""

import time
from collections.abc import Iterator
from itertools import compress, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from regionlab.data.images import ImageError, read_image_and_digest
from regionlab.index.index import Index
from regionlab.index.staging import staged_folder
from regionlab.index.tables import REGION_COLUMNS, empty_table, name_region
from regionlab.index.vectors import open_vectors, write_vectors
from regionlab.models.encoder import NO_DIRECTION, Encoder
from regionlab.models.segmenter import MaskGeneratorConfig, Region, Segmenter
from regionlab.regions.encodings import encode_regions
from regionlab.util.memory import name_picture, named_memory_error
from regionlab.util.progress import progress


class Visit(NamedTuple):
    """What came of one image: lines of the table, a vector each, and why not, if not."""

    lines: list[tuple]
    vectors: np.ndarray
    reason: str
    seconds: float


def write_shards(
    index: Index,
    rows: np.ndarray,
    segmenter: Segmenter,
    encoder: Encoder,
    folder: Path,
    *,
    encoding: str,
    everything: MaskGeneratorConfig,
    shard_size: int,
) -> None:
    """Find and encode the regions of images that no shard in `folder` holds yet.

    A shard with an image that could not be read is done again: it may be back.

    Parameters
    ----------
    rows
        Which images of the index, ascending.
    """
    starts = [s for s in range(0, len(rows), shard_size) if not _is_done(_path(folder, s))]
    shards = [rows[start : start + shard_size] for start in starts]
    visits = (
        _visit(index, int(row), segmenter, encoder, encoding, everything)
        for shard in shards
        for row in shard
    )
    visits = progress(visits, desc="find regions", total=sum(map(len, shards)))
    for start, shard in zip(starts, shards, strict=True):
        digests = index.images["sha256"].to_numpy()[shard]
        seen = pd.DataFrame({"row": shard, "sha256": digests}).astype({"sha256": "str"})
        _save(_path(folder, start), seen, list(islice(visits, len(shard))), encoder.dim)
    for _ in visits:  # lets the progress come to its end
        pass


def read_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the regions of all shards, and `reason` and `seconds` of the images visited."""
    regions = [empty_table()]
    images = [pd.DataFrame({"reason": [""], "seconds": [0.0]}).iloc[:0]]
    for shard in list_shards(folder):
        regions.append(pd.read_parquet(shard / "regions.parquet"))
        images.append(pd.read_parquet(shard / "images.parquet")[["reason", "seconds"]])
    return pd.concat(regions, ignore_index=True), pd.concat(images, ignore_index=True)


def read_vectors(folder: Path) -> Iterator[np.ndarray]:
    """Yield the vector of each region of all shards, (d,) float32."""
    for shard in list_shards(folder):
        yield from open_vectors(shard / "vectors.npy")


def list_shards(folder: Path) -> list[Path]:
    """Return the shards in a folder, in the order of their images."""
    return sorted(folder.glob("*.shard"))


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
    everything: MaskGeneratorConfig,
) -> Visit:
    began = time.perf_counter()
    vectors, lines, reason = np.empty((0, encoder.dim), np.float32), [], ""
    try:
        image = _read_as_indexed(index, row)
        with named_memory_error(name_picture(image.shape)):
            regions = segmenter.segment_everything(image, settings=everything)
            masks = (region.mask for region in regions)  # one at a time
            vectors = encode_regions(encoder, image, masks, encoding=encoding, strict=False)
            image_id = index.images["image_id"].iloc[row]
            lines = [_describe(region, image_id, row) for region in regions]
    except ImageError as e:
        reason = e.reason
    except MemoryError as e:
        vectors, lines, reason = vectors[:0], [], str(e) or "out of memory"
    good = np.isfinite(vectors).all(axis=1)
    if not good.all():
        reason = f"{np.sum(~good)} of its {len(good)} regions left out: {NO_DIRECTION}"
        vectors, lines = vectors[good], list(compress(lines, good))
    return Visit(lines, vectors, reason, time.perf_counter() - began)


def _read_as_indexed(index: Index, row: int) -> np.ndarray:
    path = index.path(row)
    image, digest = read_image_and_digest(path)
    if digest != index.images["sha256"].iloc[row]:
        raise ImageError(path, "changed since it was indexed")
    return image


def _describe(region: Region, image_id: str, row: int) -> tuple:
    """Return the region's line of the table, in the order of `REGION_COLUMNS`."""
    counts = region.rle["counts"]
    scores = (region.quality, region.stability)
    return (name_region(image_id, counts), image_id, row, *region.box, region.area, *scores, counts)


def _save(shard: Path, seen: pd.DataFrame, visits: list[Visit], dim: int) -> None:
    lines = [line for visit in visits for line in visit.lines]
    table = pd.DataFrame(lines, columns=list(REGION_COLUMNS)).astype(REGION_COLUMNS)
    images = seen.assign(
        reason=[visit.reason for visit in visits], seconds=[visit.seconds for visit in visits]
    )
    with staged_folder(shard) as new:
        table.to_parquet(new / "regions.parquet")
        blocks = (visit.vectors for visit in visits)
        write_vectors(new / "vectors.npy", blocks, (len(lines), dim))
        images.to_parquet(new / "images.parquet")
