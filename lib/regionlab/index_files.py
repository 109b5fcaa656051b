"""The files of an index: writing them, reading the manifest, checking that they belong together."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regionlab.collection import Collection
from regionlab.embedding import Encoder
from regionlab.shards import read_shards

SCHEMA = 1
IMAGE_FILES = ("images.parquet", "image_vectors.npy", "failures.csv")
REGION_FILES = ("regions.parquet", "region_vectors.npy", "region_failures.csv")
FILES = ("manifest.json", *IMAGE_FILES, *REGION_FILES)
FAILURE_COLUMNS = ["image_id", "path", "reason"]


class IndexFolderError(ValueError):
    """An index that is missing, damaged, or made by another model; says what to do."""


def write_index_files(
    collection: Collection, encoder: Encoder, work: Path, folder: Path, plan: str
) -> None:
    """Join the shards in `work` into the files of an index, in `work`/ready.

    Parameters
    ----------
    folder
        Where the index will lie: its images are recorded as seen from there.
    plan
        What decided the index, to know it again.

    Raises
    ------
    ValueError
        If not one image can be read.
    """
    new, shards = work / "new", work / "shards"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    sizes, digests, reasons, seconds = (
        np.concatenate(list(read_shards(shards, name)))
        for name in ("sizes", "digests", "reasons", "seconds")
    )
    read = digests != ""
    if not read.any():
        raise ValueError(
            f"not one of the {len(collection)} images of {collection!r} can be read; the first: "
            f"{collection.images['path'].iloc[0]}: {reasons[0]}"
        )
    images = collection.images.assign(width=sizes[:, 0], height=sizes[:, 1], sha256=digests)
    images = images[read].reset_index(drop=True)
    images.to_parquet(new / "images.parquet")
    unread = collection.images.assign(reason=reasons)[~read]
    skipped = collection.skipped.assign(image_id="")
    failures = pd.concat([unread[FAILURE_COLUMNS], skipped[FAILURE_COLUMNS]])
    failures.to_csv(new / "failures.csv", index=False)
    vectors = _join_vectors(new / "image_vectors.npy", shards, read, encoder.dim)
    manifest = {
        "schema": SCHEMA,
        "id": _digest_table(images, encoder.space, encoder.fingerprint),
        "plan": plan,
        "space": encoder.space,
        "model": encoder.fingerprint,
        "collection": collection.name,
        "split": collection.split,
        "root": str(collection.root.resolve()),
        "root_from_here": os.path.relpath(collection.root.resolve(), folder),
        "regions": None,
        "count": len(images),
        "dim": encoder.dim,
        "vectors_sample": digest_sample(vectors),
        "failures": len(failures),
        "seconds": round(float(seconds.sum()), 3),
    }
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1))
    new.rename(work / "ready")


def _join_vectors(path: Path, shards: Path, read: np.ndarray, dim: int) -> np.ndarray:
    joined = np.lib.format.open_memmap(path, "w+", np.float32, (int(read.sum()), dim))
    start = row = 0
    for vectors in read_shards(shards, "vectors"):
        kept = vectors[read[start : start + len(vectors)]]
        joined[row : row + len(kept)] = kept
        start, row = start + len(vectors), row + len(kept)
    joined.flush()
    return joined


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`, raising `IndexFolderError` if it is not there or not ours."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        schema = manifest["schema"]
    except (FileNotFoundError, NotADirectoryError) as e:
        raise IndexFolderError(f"no index at {folder}: it holds no manifest.json") from e
    except Exception as e:
        raise damaged(folder, f"manifest.json: {e!r}") from e
    if schema != SCHEMA:
        raise IndexFolderError(
            f"the index at {folder} has schema {schema}, this version reads {SCHEMA}: "
            "build it again, or use the version that built it"
        )
    return manifest


def check_agreement(
    manifest: dict, images: pd.DataFrame, vectors: np.ndarray, failures: pd.DataFrame
) -> None:
    """Raise `ValueError` if these are not the tables and vectors written with the manifest."""
    expected = (manifest["count"], manifest["dim"])
    if vectors.shape != expected or vectors.dtype != np.float32 or len(images) != expected[0]:
        raise ValueError(
            f"its manifest says {expected[0]} images of {expected[1]} dimensions, the table has "
            f"{len(images)}, the vectors are {vectors.shape} {vectors.dtype}"
        )
    if _digest_table(images, manifest["space"], manifest["model"]) != manifest["id"]:
        raise ValueError("images.parquet is not the table that was written with it")
    if digest_sample(vectors) != manifest["vectors_sample"]:
        raise ValueError("image_vectors.npy is not the file that was written with it")
    if len(failures) != manifest["failures"] or list(failures.columns) != FAILURE_COLUMNS:
        raise ValueError(f"failures.csv does not list {manifest['failures']} files")


def _digest_table(images: pd.DataFrame, space: str, model: dict) -> str:
    digest = hashlib.sha256(f"{space} {model['precision']}".encode())
    for column in ("image_id", "path", "sha256"):
        digest.update("\n".join(["", column, *images[column]]).encode())
    return digest.hexdigest()[:16]


def digest_sample(vectors: np.ndarray) -> str:
    """Hash some rows from all over the file; to read all of a large one would take too long."""
    sample = np.ascontiguousarray(vectors[:: max(len(vectors) // 1000, 1)])
    return hashlib.sha256(sample.tobytes()).hexdigest()


def find_root(folder: Path, manifest: dict) -> Path:
    """Return the folder of the images: where it lies from the index, or else by its own path."""
    beside, recorded = (folder / manifest["root_from_here"]).resolve(), Path(manifest["root"])
    return beside if beside.is_dir() or not recorded.is_dir() else recorded


def damaged(folder: Path, reason: object) -> IndexFolderError:
    """Return the error that says so, and what to do."""
    return IndexFolderError(f"the index at {folder} is damaged: {reason}; build it again")
