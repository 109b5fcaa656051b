"""The files of an index's regions: writing them, reading them, checking that they belong to it."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from regionlab.failure_files import FAILURE_COLUMNS, read_failures, write_failures
from regionlab.index_files import IMAGE_FILES, REGION_FILES, read_manifest, write_manifest
from regionlab.index_stamps import STAMPS
from regionlab.vector_files import digest_sample, link_or_copy, open_vectors, write_vectors
from regionlab.weights import hash_file

TABLE, VECTORS, FAILURES = REGION_FILES
POLICY = ("segmenter", "everything", "encoding", "model")
PENDING = "no regions yet: call add_regions"  # the reason of images that nobody has looked at
COLUMNS = {
    "region_id": "str",
    "image_id": "str",
    "row": "int64",
    "x0": "float64",
    "y0": "float64",
    "x1": "float64",
    "y1": "float64",
    "area": "int64",
    "quality": "float32",
    "stability": "float32",
    "rle": "str",
}


def empty_table() -> pd.DataFrame:
    """Return a table of no regions, with the columns and types of `COLUMNS`."""
    return pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)


def get_policy(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what decided the regions of an index."""
    return {key: manifest["regions"][key] for key in POLICY}


def name_region(image_id: str, counts: str) -> str:
    """Return the id of a region: a hash of its image's id and its mask's RLE."""
    return hashlib.sha256(f"{image_id} {counts}".encode()).hexdigest()[:16]


def write_region_files(
    new: Path,
    folder: Path,
    policy: dict[str, Any],
    regions: pd.DataFrame,
    vectors: Iterable[np.ndarray],
    visits: pd.DataFrame,
    *,
    unchanged: Path | None = None,
) -> None:
    """Write the index in `folder` once more, with its regions, into the folder `new`.

    Parameters
    ----------
    policy
        What decided the regions, as plain JSON values; it becomes part of the manifest.
    regions, vectors
        A line of `COLUMNS` and a vector (d,) float32 each, in the order of the images; the
        vectors in blocks.
    visits
        `reason` (empty unless it could not be read) and `seconds` of each image.
    unchanged
        Folder of an index with the very table and vectors, if there is one.

    Raises
    ------
    ValueError
        If not one image could be read.
    """
    for name in (*IMAGE_FILES, *([STAMPS] if (folder / STAMPS).exists() else [])):
        link_or_copy(folder / name, new / name)
    images = pd.read_parquet(new / "images.parquet")
    failures = images.assign(reason=visits["reason"])[visits["reason"] != ""][FAILURE_COLUMNS]
    if len(failures) == len(images) and not len(regions) and PENDING not in set(visits["reason"]):
        first = failures.iloc[0]
        raise ValueError(
            f"regions can be found in not one of the {len(images)} images of the index {folder}; "
            f"the first: {first['path']}: {first['reason']}"
        )
    manifest = read_manifest(folder)
    if unchanged is not None:
        link_or_copy(unchanged / TABLE, new / TABLE)
        link_or_copy(unchanged / VECTORS, new / VECTORS)
    else:
        regions.to_parquet(new / TABLE)
        write_vectors(new / VECTORS, vectors, (len(regions), manifest["dim"]))
    write_failures(new / FAILURES, failures)
    seen = pd.Index(np.flatnonzero(visits["reason"] == ""))
    manifest["regions"] = {
        "id": _digest_contents(manifest["id"], regions, policy),
        **policy,
        "count": len(regions),
        "images_without": len(seen.difference(regions["row"])),
        "table": _digest_table(regions),
        "vectors_sample": digest_sample(open_vectors(new / VECTORS)),
        "failures": len(failures),
        "seconds": round(float(visits["seconds"].sum()), 3),
    }
    # What was written before checksums must not get one by chance: nobody knows what it was.
    checksums = {name: manifest.get("files", {}).get(name) for name in IMAGE_FILES}
    checksums |= {name: hash_file(new / name) for name in REGION_FILES}
    manifest["files"] = {name: digest for name, digest in checksums.items() if digest}
    write_manifest(new, manifest)


def read_region_files(
    folder: Path, manifest: dict[str, Any], images: pd.DataFrame
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame] | tuple[None, None, None]:
    """Read table, vectors and failures of an index's regions; three None if it has none.

    Raises
    ------
    ValueError
        If they are not those written with the manifest, or do not belong to the images.
        Damaged files raise what their readers raise.
    """
    if manifest["regions"] is None:
        return None, None, None
    regions = pd.read_parquet(folder / TABLE)
    vectors = open_vectors(folder / VECTORS)
    failures = read_failures(folder / FAILURES)
    _check_vectors(manifest, regions, vectors)
    _check_table(manifest, regions, images)
    expected = manifest["regions"]["failures"]
    if len(failures) != expected:
        raise ValueError(f"{FAILURES} does not list {expected} files")
    return regions, vectors, failures


def _check_vectors(manifest: dict, regions: pd.DataFrame, vectors: np.ndarray) -> None:
    made, dim = manifest["regions"], manifest["dim"]
    expected = (made["count"], dim)
    if vectors.shape != expected or vectors.dtype != np.float32 or len(regions) != expected[0]:
        raise ValueError(
            f"its manifest says {made['count']} regions of {dim} dimensions, the table has "
            f"{len(regions)}, the vectors are {vectors.shape} {vectors.dtype}"
        )
    if digest_sample(vectors) != made["vectors_sample"]:
        raise ValueError(f"{VECTORS} is not the file that was written with it")


def _check_table(manifest: dict, regions: pd.DataFrame, images: pd.DataFrame) -> None:
    rows = regions["row"].to_numpy()
    if len(rows) and not (0 <= rows[0] and rows[-1] < len(images) and (np.diff(rows) >= 0).all()):
        raise ValueError(f"the rows in {TABLE} do not ascend within the {len(images)} images")
    if not regions["region_id"].is_unique:
        raise ValueError(f"{TABLE} holds a region_id twice")
    if not np.array_equal(images["image_id"].to_numpy()[rows], regions["image_id"]):
        raise ValueError(f"{TABLE} belongs to other images")
    if _digest_table(regions) != manifest["regions"]["table"]:
        raise ValueError(f"{TABLE} is not the table that was written with it")


def _digest_contents(index_id: str, regions: pd.DataFrame, policy: dict) -> str:
    """Hash what the regions are: the images, their masks, and how these became vectors."""
    how = [index_id, policy["encoding"], policy["model"]["precision"]]
    text = "\n".join([json.dumps(how), *regions["region_id"]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_table(regions: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for column, kind in COLUMNS.items():
        values = regions[column]
        content = "\n".join(values).encode() if kind == "str" else values.to_numpy(kind).tobytes()
        digest.update(f"\n{column}\n".encode() + content)
    return digest.hexdigest()
