"""Index: the vectors of a collection's images on disk, with what is needed to trust them.

A folder with `manifest.json`, `images.parquet`, `image_vectors.npy` and `failures.csv`. It is
built in shards beside its place and put there in one move, so a build that was killed goes on
where it stopped and an index that can be opened is whole.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regionlab.collection import Collection
from regionlab.embedding import Encoder, ImageBatch
from regionlab.progress import progress as show_progress

SCHEMA = 1
IMAGE_COLUMNS = ("image_id", "path", "width", "height", "sha256")


class IndexFolderError(ValueError):
    """An index that is missing, damaged, or made by another model; says what to do."""


@dataclass(frozen=True, eq=False)
class Index:
    """Image vectors with their table; row i of both belongs together.

    Attributes
    ----------
    folder
        Where it lies.
    manifest
        Schema version, model fingerprint, collection, counts and how the build went.
    root
        Folder that the paths in `images` are relative to.
    images
        `image_id`, `path`, `width`, `height`, `sha256` of the file, and any further columns of
        the collection.
    vectors
        (n, d) float32, unit length, memory-mapped.
    failures
        `image_id`, `path`, `reason` of the images that could not be read, and of what the
        collection's loader had to skip (these have no id).
    """

    folder: Path
    manifest: dict[str, Any]
    root: Path
    images: pd.DataFrame
    vectors: np.ndarray
    failures: pd.DataFrame

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        made = self.manifest
        failed = f", {len(self.failures)} unreadable" if len(self.failures) else ""
        return (
            f"<Index {made['collection']}: {len(self)} images by {made['model']['model']}{failed}>"
        )

    @property
    def id(self) -> str:
        """Short id of the contents: the collection's files and the model's fingerprint."""
        return self.manifest["plan"][:16]

    def path(self, row: int) -> Path:
        """Return the absolute path of the image in a row."""
        return self.root / self.images["path"].iloc[row]

    def rows_of(self, image_ids: list[str]) -> np.ndarray:
        """Return the rows of images, (n,) int64; KeyError names the first id not indexed."""
        rows = pd.Index(self.images["image_id"]).get_indexer(image_ids)
        if (rows < 0).any():
            raise KeyError(
                f"no image {image_ids[int(np.argmin(rows))]!r} in the index {self.folder}"
            )
        return rows.astype(np.int64)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raise `IndexFolderError` if the encoder's vectors live in another space than these."""
        if encoder.space != self.manifest["space"]:
            raise IndexFolderError(
                f"the index {self.folder} holds vectors of {self.manifest['model']['model']} "
                f"(space {self.manifest['space']}), the query is by {encoder.name} (space "
                f"{encoder.space}): load the same model, or build another index"
            )

    def missing_files(self) -> list[Path]:
        """Return the indexed images that are no longer on disk (integrity check of S0 3.3)."""
        return [path for path in map(self.path, range(len(self))) if not path.is_file()]


def build_index(
    collection: Collection,
    encoder: Encoder,
    folder: Path | str,
    *,
    batch_size: int = 64,
    workers: int = 2,
    shard_size: int = 2048,
    fresh: bool = False,
) -> Index:
    """Embed all images of a collection into an index on disk, or go on with one begun.

    Images that cannot be read are listed in the index's failures and never stop the build. An
    index of the same files by the same model that is there already is opened as it is.

    Parameters
    ----------
    collection
        Which images.
    encoder
        Which vectors.
    folder
        Where the index goes. What lies there is replaced once the new index is complete.
    batch_size, workers
        As for `Encoder.encode_stream`.
    shard_size
        Images between two savings: what a killed build has to do again at most.
    fresh
        Embed everything again, whatever is there.

    Raises
    ------
    ValueError
        If the collection is empty, or not one of its images can be read.
    IndexFolderError
        If `folder` holds something that is not an index.
    """
    folder = Path(folder)
    if not len(collection):
        raise ValueError(f"{collection!r} has no images to index")
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    plan = _plan_build(collection, encoder)
    _recover(folder)
    _check_replaceable(folder)
    if not fresh and (ready := _open_if_planned(folder, plan)):
        return ready
    work = _open_workshop(folder, plan, fresh)
    seconds = _write_shards(collection, encoder, work, batch_size, workers, shard_size)
    _assemble(collection, encoder, work, plan, shard_size, seconds)
    _put_in_place(work, folder)
    return open_index(folder)


def open_index(folder: Path | str) -> Index:
    """Open an index after checking that its table and vectors agree.

    Raises
    ------
    IndexFolderError
        If there is no index, a file is missing or damaged, or the counts do not agree.
    """
    folder = Path(folder)
    _recover(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        images = pd.read_parquet(folder / "images.parquet")
        vectors = np.load(folder / "image_vectors.npy", mmap_mode="r", allow_pickle=False)
        failures = pd.read_csv(folder / "failures.csv", dtype=str, keep_default_na=False)
    except FileNotFoundError as e:
        raise IndexFolderError(f"no index at {folder}: {Path(e.filename).name} is missing") from e
    except Exception as e:  # json, parquet, numpy and csv each have errors of their own
        raise IndexFolderError(f"the index at {folder} is damaged: {e}; build it again") from e
    if manifest.get("schema") != SCHEMA:
        raise IndexFolderError(
            f"the index at {folder} has schema {manifest.get('schema')}, this version reads "
            f"{SCHEMA}: build it again"
        )
    _check_agreement(folder, manifest, images, vectors)
    return Index(folder, manifest, Path(manifest["root"]), images, vectors, failures)


def _check_agreement(folder: Path, manifest: dict, images: pd.DataFrame, vectors) -> None:
    expected = (manifest["count"], manifest["dim"])
    if vectors.shape != expected or vectors.dtype != np.float32 or len(images) != expected[0]:
        raise IndexFolderError(
            f"the index at {folder} is damaged: its manifest says {expected[0]} images of "
            f"{expected[1]} dimensions, the table has {len(images)}, the vectors are "
            f"{vectors.shape} {vectors.dtype}; build it again"
        )
    sample = np.asarray(vectors[:: max(len(vectors) // 1000, 1)])
    if not np.allclose(np.linalg.norm(sample, axis=1), 1, atol=1e-3):
        raise IndexFolderError(f"the index at {folder} is damaged: vectors are not unit length")


# Building


def _plan_build(collection: Collection, encoder: Encoder) -> str:
    """Hash what decides the index: model, precision, and each file's name, size and time."""
    digest = hashlib.sha256(json.dumps([SCHEMA, encoder.space, encoder.fingerprint]).encode())
    digest.update(str(collection.root).encode())
    for image_id, path in zip(
        collection.images["image_id"], collection.images["path"], strict=True
    ):
        digest.update(f"\n{image_id}\t{path}\t{_stamp(collection.root / path)}".encode())
    return digest.hexdigest()


def _stamp(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _open_if_planned(folder: Path, plan: str) -> Index | None:
    try:
        index = open_index(folder)
    except IndexFolderError:
        return None
    return index if index.manifest["plan"] == plan else None


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and not (folder / "manifest.json").exists():
        if not folder.is_dir() or any(folder.iterdir()):
            raise IndexFolderError(
                f"{folder} is not an index and not empty: it will not be replaced"
            )


def _open_workshop(folder: Path, plan: str, fresh: bool) -> Path:
    """Return the folder of shards beside the index, emptied if it belongs to another plan."""
    work = folder.with_name(folder.name + ".building")
    marker = work / "plan"
    if fresh or not marker.exists() or marker.read_text() != plan:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        marker.write_text(plan)
    return work


def _write_shards(collection, encoder, work: Path, batch_size, workers, shard_size) -> float:
    """Embed what no shard holds yet; return the seconds that took."""
    started = time.perf_counter()
    todo = [
        start for start in range(0, len(collection), shard_size) if not _shard(work, start).exists()
    ]
    rows = [row for start in todo for row in range(start, min(start + shard_size, len(collection)))]
    paths = [collection.root / collection.images["path"].iloc[row] for row in rows]
    batches = encoder.encode_stream(paths, batch_size=batch_size, workers=workers)
    seen = iter(show_progress(_one_by_one(batches), desc="embed images", total=len(paths)))
    for start in todo:
        size = min(shard_size, len(collection) - start)
        _save_shard(_shard(work, start), [next(seen) for _ in range(size)], encoder.dim)
    for _ in seen:  # lets the progress come to its end
        pass
    return time.perf_counter() - started


def _shard(work: Path, start: int) -> Path:
    return work / f"shard-{start:09d}.npz"


def _one_by_one(batches: Iterator[ImageBatch]) -> Iterator[tuple]:
    """Take batches apart: (vector, size, digest, reason) of each image in order."""
    for batch in batches:
        items = {
            int(row): (vector, size, digest, "")
            for row, vector, size, digest in zip(
                batch.rows, batch.vectors, batch.sizes, batch.digests, strict=True
            )
        }
        items |= {row: (None, (-1, -1), "", error.reason) for row, error in batch.failures}
        yield from (items[row] for row in sorted(items))


def _save_shard(path: Path, items: list[tuple], dim: int) -> None:
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
        )
    temporary.replace(path)


def _assemble(collection, encoder, work: Path, plan: str, shard_size: int, seconds: float) -> None:
    """Join the shards into the files of an index, inside the workshop."""
    shards = [np.load(_shard(work, start)) for start in range(0, len(collection), shard_size)]
    sizes, digests, reasons = (
        np.concatenate([shard[name] for shard in shards])
        for name in ("sizes", "digests", "reasons")
    )
    read = reasons == ""
    if not read.any():
        raise ValueError(
            f"not one of the {len(collection)} images of {collection!r} can be read; the first: "
            f"{collection.images['path'].iloc[0]}: {reasons[0]}"
        )
    images = collection.images.assign(width=sizes[:, 0], height=sizes[:, 1], sha256=digests)
    images[read].reset_index(drop=True).to_parquet(work / "images.parquet")
    failures = collection.images[["image_id", "path"]].assign(reason=reasons)[~read]
    skipped = collection.skipped.assign(image_id="")
    failures = pd.concat([failures, skipped[list(failures.columns)]])
    failures.to_csv(work / "failures.csv", index=False)
    _join_vectors(work / "image_vectors.npy", shards, read, encoder.dim)
    manifest = {
        "schema": SCHEMA,
        "plan": plan,
        "space": encoder.space,
        "model": encoder.fingerprint,
        "collection": collection.name,
        "split": collection.split,
        "root": str(collection.root),
        "regions": None,
        "count": int(read.sum()),
        "dim": encoder.dim,
        "failures": len(failures),
        "seconds": round(seconds, 3),
    }
    (work / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _join_vectors(path: Path, shards: list, read: np.ndarray, dim: int) -> None:
    joined = np.lib.format.open_memmap(path, "w+", np.float32, (int(read.sum()), dim))
    start = row = 0
    for shard in shards:
        vectors = shard["vectors"]
        kept = vectors[read[start : start + len(vectors)]]
        joined[row : row + len(kept)] = kept
        start, row = start + len(vectors), row + len(kept)
    joined.flush()


def _put_in_place(work: Path, folder: Path) -> None:
    """Swap the finished index in. Between the two moves `_recover` knows what to do."""
    for leftover in [*work.glob("shard-*"), work / "plan"]:
        leftover.unlink()
    ready, old = folder.with_name(folder.name + ".ready"), folder.with_name(folder.name + ".old")
    shutil.rmtree(ready, ignore_errors=True)
    work.rename(ready)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    ready.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Finish a swap that was cut off: a complete new index is waiting beside its place."""
    ready, old = folder.with_name(folder.name + ".ready"), folder.with_name(folder.name + ".old")
    if ready.exists():
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        ready.rename(folder)
    if folder.exists() and old.exists():
        shutil.rmtree(old, ignore_errors=True)
