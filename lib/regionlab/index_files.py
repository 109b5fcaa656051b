"""The files of an index: writing them, reading the manifest, checking that they belong together."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from regionlab.collection import Collection
from regionlab.failure_files import FAILURE_COLUMNS, write_failures
from regionlab.index_stamps import STAMPS, Stamp, write_stamps
from regionlab.shards import read_shards
from regionlab.vector_files import (
    StackedVectors,
    digest_sample,
    link_or_copy,
    merge_vectors,
    open_vectors,
    write_vectors,
)
from regionlab.weights import hash_file

SCHEMA = 1
IMAGE_FILES = ("images.parquet", "image_vectors.npy", "failures.csv")
REGION_FILES = ("regions.parquet", "region_vectors.npy", "region_failures.csv")
FILES = ("manifest.json", *IMAGE_FILES, *REGION_FILES, STAMPS)


class IndexFolderError(ValueError):
    """An index that is missing, damaged, or made by another model; says what to do."""


class Known(NamedTuple):
    """An older index's images, and which of them a new one takes over.

    Attributes
    ----------
    images
        `width`, `height` and `sha256` of each.
    vectors
        (m, d) float32, theirs.
    rows
        (n,) int64, for each image of the new one its row in the old one; -1 if it is to come
        from the shards, in their order.
    model
        `space`, `model`, `dim` of the vectors, as the manifest has them.
    seconds
        What the old one took.
    file
        Of the very vectors that the new one is to have, if it needs no others.
    """

    images: pd.DataFrame
    vectors: np.ndarray | StackedVectors
    rows: np.ndarray
    model: dict[str, Any]
    seconds: float = 0.0
    file: Path | None = None


def write_index_files(
    new: Path,
    collection: Collection,
    shards: Path,
    *,
    folder: Path,
    plan: str,
    known: Known,
    stamps: list[Stamp],
) -> None:
    """Join what is known and the shards of the rest into the files of an index.

    Parameters
    ----------
    new
        The folder to write to.
    collection
        All images of the index. Its `skipped` may have a column `image_id`.
    shards
        The folder of the shards.
    folder
        Where the index will lie: its images are recorded as seen from there.
    plan
        What decided the index, to know it again.
    known
        Images that need no embedding.
    stamps
        Of the images' files, from before they were read.

    Raises
    ------
    ValueError
        If not one image can be read.
    """
    visits, model = _merge_visits(known, shards), known.model
    read = (visits["sha256"] != "").to_numpy()
    if not read.any():
        raise ValueError(
            f"not one of the {len(collection)} images of {collection!r} can be read; the first: "
            f"{collection.images['path'].iloc[0]}: {visits['reason'].iloc[0]}"
        )
    images = collection.images.assign(**visits[["width", "height", "sha256"]])
    images = images[read].reset_index(drop=True)
    images.to_parquet(new / "images.parquet")
    unread = collection.images.assign(reason=visits["reason"])[~read]
    skipped = collection.skipped.reindex(columns=FAILURE_COLUMNS, fill_value="")
    failures = pd.concat([unread[FAILURE_COLUMNS], skipped])
    write_failures(new / "failures.csv", failures)
    write_stamps(new / STAMPS, folder, collection, stamps, visits["sha256"])
    if known.file is not None:
        link_or_copy(known.file, new / "image_vectors.npy")
    else:
        fresh = (vector for part in read_shards(shards, "vectors") for vector in part)
        blocks = merge_vectors(known.vectors, known.rows, fresh, keep=read)
        write_vectors(new / "image_vectors.npy", blocks, (len(images), model["dim"]))
    seconds = known.seconds + sum(float(part.sum()) for part in read_shards(shards, "seconds"))
    manifest = {
        "schema": SCHEMA,
        "id": _digest_table(images, model),
        "plan": plan,
        "space": model["space"],
        "model": model["model"],
        "collection": collection.name,
        "split": collection.split,
        "title": collection.title,
        "root": str(collection.root.resolve()),
        "root_from_here": os.path.relpath(collection.root.resolve(), folder),
        "regions": None,
        "count": len(images),
        "dim": model["dim"],
        "vectors_sample": digest_sample(open_vectors(new / "image_vectors.npy")),
        "failures": len(failures),
        "seconds": round(seconds, 3),
        "files": {name: hash_file(new / name) for name in IMAGE_FILES},
    }
    write_manifest(new, manifest)


def _merge_visits(known: Known, shards: Path) -> pd.DataFrame:
    """Return `width`, `height`, `sha256` and `reason` of all images, in their order."""
    old = known.images[["width", "height", "sha256"]].iloc[known.rows[known.rows >= 0]]
    old = old.assign(reason="").set_axis(np.flatnonzero(known.rows >= 0))
    sizes = np.concatenate([np.empty((0, 2), np.int64), *read_shards(shards, "sizes")])
    digests, reasons = (
        np.concatenate([np.empty(0, "U1"), *read_shards(shards, name)])
        for name in ("digests", "reasons")
    )
    new = {"width": sizes[:, 0], "height": sizes[:, 1], "sha256": digests, "reason": reasons}
    new = pd.DataFrame(new, index=np.flatnonzero(known.rows < 0))
    return pd.concat([old.astype(new.dtypes), new]).sort_index()


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `manifest.json` with a checksum of its own."""
    manifest = {key: value for key, value in manifest.items() if key != "checksum"}
    manifest["checksum"] = digest_manifest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def digest_manifest(manifest: dict[str, Any]) -> str:
    """Hash all of a manifest but its own checksum."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


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
    if _digest_table(images, manifest) != manifest["id"]:
        raise ValueError("images.parquet is not the table that was written with it")
    if digest_sample(vectors) != manifest["vectors_sample"]:
        raise ValueError("image_vectors.npy is not the file that was written with it")
    if len(failures) != manifest["failures"]:
        raise ValueError(f"failures.csv does not list {manifest['failures']} files")


def _digest_table(images: pd.DataFrame, model: dict) -> str:
    digest = hashlib.sha256(f"{model['space']} {model['model']['precision']}".encode())
    for column in ("image_id", "path", "sha256"):
        digest.update("\n".join(["", column, *images[column]]).encode())
    return digest.hexdigest()[:16]


def find_root(folder: Path, manifest: dict) -> Path:
    """Return the folder of the images: where it lies from the index, or else by its own path."""
    beside, recorded = (folder / manifest["root_from_here"]).resolve(), Path(manifest["root"])
    return beside if beside.is_dir() or not recorded.is_dir() else recorded


def damaged(folder: Path, reason: object) -> IndexFolderError:
    """Return the error that says so, and what to do."""
    return IndexFolderError(f"the index at {folder} is damaged: {reason}; build it again")
