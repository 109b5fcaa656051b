"""Say what is wrong with an index and what to do about it, and copy one, also to object storage."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from regionlab.data.masks import mask_to_box, rle_to_mask
from regionlab.index.index import Index, open_index
from regionlab.index.staging import IMAGES, PREVIOUS, REGIONS, find_builder, get_staging
from regionlab.index.tables import (
    BLOCK,
    FILES,
    IMAGE_FILES,
    REGION_COLUMNS,
    REGION_FILES,
    IndexFolderError,
    digest_manifest,
    name_region,
    open_vectors,
    read_manifest,
)
from regionlab.util.files import hash_file
from regionlab.util.progress import progress

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

    from regionlab.models.encoder import Encoder

COPY_BYTES = 1 << 22  # in memory at once
UNIT = 1e-3  # how far from 1 the length of a vector may be
# Cosine of an image's vector with itself, computed again: in fp32 on both sides, and otherwise.
ALIKE_FP32, ALIKE = 0.9999, 0.99
SAMPLE = 64  # how many are computed again
IMAGE_TABLE, REGION_TABLE = "images.parquet", "regions.parquet"
REBUILD = "Build the index again with fresh=True, then its regions if it had any."
REGIONS_AGAIN = (
    "Find the regions again: add_regions(..., fresh=True); if it does not open, build it."
)


@dataclass(frozen=True)
class Finding:
    """Something about an index that its owner should know.

    Attributes
    ----------
    where
        The file or folder.
    what
        What is wrong with it.
    advice
        What to do.
    harm
        False for a mere note: nothing is known to be wrong.
    """

    where: str
    what: str
    advice: str
    harm: bool = True

    def __str__(self) -> str:
        return f"{'' if self.harm else 'note: '}{self.where}: {self.what}. {self.advice}"


def damage(name: str, what: str) -> Finding:
    """Return the finding of a damaged file of an index."""
    return Finding(name, what, REGIONS_AGAIN if name.startswith("region") else REBUILD)


def check_images(images: pd.DataFrame, count: int) -> Iterator[Finding]:
    """Yield what is wrong with the table of images.

    Parameters
    ----------
    count
        Rows that the manifest promises.
    """
    missing = {"image_id", "path", "width", "height", "sha256"} - set(images)
    if missing:
        yield damage(IMAGE_TABLE, f"has no column {min(missing)!r}")
        return
    yield from _count(IMAGE_TABLE, len(images), count)
    if not images["image_id"].is_unique:
        yield damage(IMAGE_TABLE, "holds an image_id twice")
    bad = ~images["sha256"].str.fullmatch("[0-9a-f]{64}").to_numpy(bool)
    yield from _rows(IMAGE_TABLE, "have no SHA-256", bad)
    yield from _rows(IMAGE_TABLE, "have no size", (images[["width", "height"]] < 1).any(axis=1))


def check_vectors(name: str, vectors: np.ndarray, shape: tuple[int, int]) -> Iterator[Finding]:
    """Yield what is wrong with a file of vectors, which should be `shape` float32, unit length."""
    if vectors.shape != shape or vectors.dtype != np.float32:
        yield damage(name, f"holds {vectors.shape} {vectors.dtype}, not {shape} float32")
        return
    starts = range(0, len(vectors), BLOCK)
    blocks = [np.linalg.norm(vectors[start : start + BLOCK], axis=1) for start in starts]
    lengths = np.concatenate([np.empty(0), *blocks])
    finite = np.isfinite(lengths)
    yield from _rows(name, "are not finite", ~finite)
    yield from _rows(name, "are not of unit length", finite & (abs(lengths - 1) > UNIT))


def check_regions(regions: pd.DataFrame, images: pd.DataFrame, count: int) -> Iterator[Finding]:
    """Yield what is wrong with the table of regions, but for their masks.

    Parameters
    ----------
    images
        Table of the images.
    count
        Rows that the manifest promises.
    """
    missing = [name for name in REGION_COLUMNS if name not in regions]
    if missing:
        yield damage(REGION_TABLE, f"has no column {missing[0]!r}")
        return
    yield from _count(REGION_TABLE, len(regions), count)
    rows = regions["row"].to_numpy()
    outside = (rows < 0) | (rows >= len(images))
    yield from _rows(REGION_TABLE, f"point outside of the {len(images)} images", outside)
    if (np.diff(rows) < 0).any():
        yield damage(REGION_TABLE, "its rows do not ascend")
    if not regions["region_id"].is_unique:
        yield damage(REGION_TABLE, "holds a region_id twice")
    if outside.any():
        return
    owners = images.iloc[rows]
    other = owners["image_id"].to_numpy() != regions["image_id"].to_numpy()
    yield from _rows(REGION_TABLE, "name another image than they point to", other)
    width, height = (owners[side].to_numpy() for side in ("width", "height"))
    x0, y0, x1, y1 = (regions[side].to_numpy() for side in ("x0", "y0", "x1", "y1"))
    inside = (0 <= x0) & (x0 < x1) & (x1 <= width) & (0 <= y0) & (y0 < y1) & (y1 <= height)
    yield from _rows(REGION_TABLE, "have a box outside of their image", ~inside)


def check_masks(regions: pd.DataFrame, images: pd.DataFrame) -> Iterator[Finding]:
    """Yield what is wrong with the masks of regions, whose table is right otherwise."""
    sizes = images[["height", "width"]].to_numpy()
    lines = progress(regions.itertuples(), desc="decode masks", total=len(regions))
    reasons = [_check_mask(line, sizes[line.row].tolist()) for line in lines]
    for reason in sorted({reason for reason in reasons if reason}):
        yield from _rows(REGION_TABLE, reason, np.array([r == reason for r in reasons]))


def _check_mask(region: tuple, size: list[int]) -> str:
    try:
        mask = rle_to_mask({"size": size, "counts": region.rle})
    except (ValueError, TypeError, AttributeError):
        return "have a mask that cannot be decoded"
    if not mask.any() or int(mask.sum()) != region.area:
        return "have a mask of another area"
    if list(mask_to_box(mask)) != [region.x0, region.y0, region.x1, region.y1]:
        return "have a mask with another box"
    named = name_region(region.image_id, region.rle) == region.region_id
    return "" if named else "have a mask with another id"


def _count(name: str, held: int, count: int) -> Iterator[Finding]:
    if held != count:
        yield damage(name, f"holds {held} rows, not {count}")


def _rows(name: str, what: str, bad: np.ndarray | pd.Series) -> Iterator[Finding]:
    rows = np.flatnonzero(bad)
    if len(rows):
        yield damage(name, f"{len(rows)} rows {what}, the first: {rows[0]}")


def verify_index(
    folder: Path | str, *, encoder: "Encoder | None" = None, quick: bool = False
) -> list[Finding]:
    """Look for damage in an index, and say what to do about it.

    Checksums of its files; tables and vectors that do not belong together; vectors that are
    not finite or not of unit length; regions outside of their image, or whose mask cannot be
    decoded; images that have gone or changed; what a killed build left behind. Nothing is
    changed.

    Parameters
    ----------
    folder
        Of the index.
    encoder
        That of the index: embeds some of its images again and compares, which finds vectors
        that are whole but of other images. None leaves that out.
    quick
        Leave out what takes long: decoding every mask and reading every image.

    Returns
    -------
    list of Finding
        Empty if nothing was found; those whose `harm` is False are mere notes.

    Raises
    ------
    IndexFolderError
        If the encoder is not that of the index.
    """
    folder = Path(folder).expanduser().resolve()
    found = list(_check_surroundings(folder))
    try:
        manifest = read_manifest(folder)
    except IndexFolderError as e:
        return [*found, Finding("manifest.json", str(e), REBUILD)]
    found += _check_files(folder, manifest)
    found += _check_contents(folder, manifest, quick)
    try:
        index = open_index(folder)
    except IndexFolderError as e:
        known = any(finding.harm for finding in found)
        return found if known else [*found, Finding("the index", str(e), REBUILD)]
    found += _check_images(index, quick)
    found += [] if encoder is None else _check_sample(index, encoder)
    return found


def _check_surroundings(folder: Path) -> Iterator[Finding]:
    builder = find_builder(folder)
    if builder:
        yield Finding(folder.name, f"is being written by {builder}", "Wait for it.", harm=False)
    for work in (get_staging(folder, task) for task in (IMAGES, REGIONS)):
        if work.exists() and not builder:
            advice = "Run the same call again to finish it, or remove this folder."
            yield Finding(work.name, "work that was cut off", advice)
    aside = get_staging(folder, PREVIOUS)
    if aside.exists():
        what = "the index that was here before, with its regions"
        advice = "It goes when add_regions is done, or comes back with its model; or remove it."
        yield Finding(aside.name, what, advice, harm=False)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for name in sorted(set(names) - set(FILES)):
        advice = "Move it elsewhere: the index cannot be built again while it is here."
        yield Finding(name, "no part of an index", advice)


def _check_files(folder: Path, manifest: dict[str, Any]) -> Iterator[Finding]:
    if manifest.get("checksum", digest_manifest(manifest)) != digest_manifest(manifest):
        yield damage("manifest.json", "not what was written: its checksum is another")
    expected = IMAGE_FILES if manifest.get("regions") is None else IMAGE_FILES + REGION_FILES
    checksums, unknown = manifest.get("files", {}), []
    for name in expected:
        if not (folder / name).is_file():
            yield damage(name, "missing")
        elif name not in checksums:
            unknown.append(name)
        elif hash_file(folder / name) != checksums[name]:
            yield damage(name, "not what was written: its checksum is another")
    if unknown:
        what = "written before checksums: cannot tell whether its bytes are still the same"
        advice = "Build the index again to have them."
        yield Finding(", ".join(unknown), what, advice, harm=False)


def _check_contents(folder: Path, manifest: dict[str, Any], quick: bool) -> Iterator[Finding]:
    """Check each file by itself, and against those that it belongs to where they can be read."""
    images, *found = _read(pd.read_parquet, folder / "images.parquet")
    yield from found
    vectors, *found = _read(open_vectors, folder / "image_vectors.npy")
    yield from found
    count, dim, made = manifest.get("count"), manifest.get("dim"), manifest.get("regions")
    if images is not None:
        yield from check_images(images, count)
    if vectors is not None:
        yield from check_vectors("image_vectors.npy", vectors, (count, dim))
    if made is None:
        return
    regions, *found = _read(pd.read_parquet, folder / "regions.parquet")
    yield from found
    vectors, *found = _read(open_vectors, folder / "region_vectors.npy")
    yield from found
    if vectors is not None:
        yield from check_vectors("region_vectors.npy", vectors, (made["count"], dim))
    if images is not None and regions is not None:
        found = list(check_regions(regions, images, made["count"]))
        yield from found if found or quick else check_masks(regions, images)


def _read(read: Callable[[Path], Any], path: Path) -> tuple:
    """Return what a file holds; or None, and what is wrong with it unless it is missing."""
    if not path.is_file():
        return (None,)
    try:
        return (read(path),)
    except Exception as e:  # parquet and numpy each have errors of their own
        return None, damage(path.name, f"cannot be read: {str(e).splitlines()[0]}")


def _check_images(index: Index, quick: bool) -> Iterator[Finding]:
    gone = [path for path in index.missing_files()]
    if gone:
        what = f"{len(gone)} images are not on disk, the first: {gone[0]}"
        yield Finding(str(index.root), what, "Bring them back, or drop them with update_index.")
    if quick:
        return
    rows = progress(range(len(index)), desc="hash images")
    changed = [index.path(row) for row in rows if _has_changed(index, row)]
    if changed:
        what = f"{len(changed)} images have changed since, the first: {changed[0]}"
        yield Finding(str(index.root), what, "Embed them again with update_index.")


def _has_changed(index: Index, row: int) -> bool:
    try:
        return hash_file(index.path(row)) != index.images["sha256"].iloc[row]
    except OSError:  # gone, which is another finding
        return False


def _check_sample(index: Index, encoder: "Encoder") -> Iterator[Finding]:
    """Embed images from all over the index again; a wrong alignment shows in most of them.

    They are read as they were for the index: large JPEGs at reduced scale, or not.
    """
    from regionlab.models.encoder import FULL

    index.check_encoder(encoder)
    encoder = copy(encoder)
    encoder.fast_decode = index.manifest["model"].get("decode", FULL) != FULL
    sample = np.unique(np.linspace(0, len(index) - 1, SAMPLE).astype(int))
    rows, vectors = [], [np.empty((0, encoder.dim), np.float32)]
    with closing(encoder.encode_stream(index.path(row) for row in sample)) as batches:
        for batch in batches:  # what cannot be read, or has changed, is another finding
            held = index.images["sha256"].to_numpy()[sample[batch.rows]]
            same = held == np.array(batch.digests, object)
            rows.extend(sample[batch.rows][same])
            vectors.append(batch.vectors[same])
    precise = index.manifest["model"]["precision"] == encoder.precision == "fp32"
    least = ALIKE_FP32 if precise else ALIKE
    cosines = (np.concatenate(vectors) * index.vectors[rows]).sum(axis=1)
    wrong = np.flatnonzero(cosines < least)
    if len(wrong):
        first = index.images["path"].iloc[rows[wrong[0]]]
        what = (
            f"{len(wrong)} of {len(rows)} vectors computed again are others (cosine below "
            f"{least}), the first: that of {first}, {cosines[wrong[0]]:.5f}"
        )
        yield damage("image_vectors.npy", what)


# ---- copy


def copy_index(source: Path | str, target: Path | str) -> str:
    """Copy an index and return where the copy is; its files are checked on their way.

    The manifest goes last, so a copy that was cut off is no index, and the same call ends it.
    The images stay where they are: an index finds them beside itself, or by their own path.

    Parameters
    ----------
    source, target
        A folder, or a URI that `pyarrow.fs.FileSystem.from_uri` understands: `s3://`, `gs://`,
        `abfs://`, `hdfs://`. Keys and regions come from the environment, as for other tools of
        the store.

    Raises
    ------
    IndexFolderError
        If there is no index at the source, a file is not the one that was written with it, the
        target holds something already, or one of the two cannot be reached.
    """
    from pyarrow import ArrowException

    try:
        return _copy(str(source), str(target))
    except IndexFolderError:
        raise
    except (OSError, ArrowException, ValueError) as e:
        raise IndexFolderError(f"cannot copy the index {source} to {target}: {e}") from e


class _Location(NamedTuple):
    """A folder of a file system."""

    system: "FileSystem"
    path: str

    def list_names(self) -> set[str]:
        """Return the names in it; none where it is not there."""
        from pyarrow import fs

        selector = fs.FileSelector(self.path, allow_not_found=True)
        return {info.base_name for info in self.system.get_file_info(selector)}

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return f"{self.path.rstrip('/')}/{name}"


def _copy(source: str, target: str) -> str:
    here, there = _find(source), _find(target)
    held, taken = here.list_names(), there.list_names()
    if FILES[0] not in held:
        raise IndexFolderError(f"no index at {source}: it holds no {FILES[0]}")
    if foreign := sorted(taken - set(FILES) | taken & {FILES[0]}):
        raise IndexFolderError(f"{target} holds {foreign[0]!r} already: name another place")
    with here.system.open_input_stream(here.file(FILES[0])) as file:
        digests = json.loads(file.read()).get("files", {})
    there.system.create_dir(there.path, recursive=True)
    for name in [*(name for name in FILES if name in held and name != FILES[0]), FILES[0]]:
        digest = _copy_file(here, there, name)
        if digest != digests.get(name, digest):
            raise IndexFolderError(
                f"{name} of {source} is not the file that was written with its manifest, or was "
                f"damaged on the way; what is at {target} is no index"
            )
    return target


def _find(place: str) -> _Location:
    from pyarrow import fs

    uri = place if "://" in place else str(Path(place).expanduser().absolute())
    return _Location(*fs.FileSystem.from_uri(uri))


def _copy_file(here: _Location, there: _Location, name: str) -> str:
    """Copy a file and return the SHA-256 of what went through."""
    digest = hashlib.sha256()
    with (
        here.system.open_input_stream(here.file(name)) as source,
        there.system.open_output_stream(there.file(name)) as target,
    ):
        while block := source.read(COPY_BYTES):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()
