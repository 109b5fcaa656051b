"""The files of an index's regions: writing them, reading them, checking that they belong to it."""

import hashlib
import io
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from numbers import Number
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from regionlab.data.collection import COLUMNS, Collection, make_table
from regionlab.index.shards import read_shards
from regionlab.index.stamps import STAMPS, Stamp, write_stamps
from regionlab.index.vectors import (
    FAILURE_COLUMNS,
    StackedVectors,
    digest_sample,
    link_or_copy,
    merge_vectors,
    open_vectors,
    read_failures,
    write_failures,
    write_vectors,
)
from regionlab.util.errors import RegionlabError
from regionlab.util.files import hash_file

OURS = ("image_id", "path", "reason")


def make_storable(collection: Collection) -> Collection:
    """Return a collection whose tables can be saved as Parquet and CSV, and read back the same.

    A column of `images` that holds texts, whole numbers of 64 bits, other numbers, truths or
    times, some of them missing, stays as it is. Any other one becomes JSON text, value by value:
    of several kinds, larger numbers, lists, mappings, bytes. Images whose name is no Unicode
    text or holds NUL are skipped, with their id.

    Raises
    ------
    ValueError
        If no image is left, or the table cannot be saved all the same.
    """
    collection = _set_aside(collection)
    images = collection.images
    columns = {}
    for number, name in enumerate(images.columns):
        column = images.iloc[:, number]
        text = _make_text(name if isinstance(name, str) else str(name))
        while text in columns:  # Parquet knows columns by name
            text += "_"
        kept = name in COLUMNS["images"] or _is_storable(column)
        columns[text] = column if kept else column.map(_to_json, na_action=None).astype("str")
    images = pd.DataFrame(columns, index=images.index)
    try:
        images.to_parquet(io.BytesIO())
    except Exception as e:  # pyarrow and its codecs each have errors of their own
        raise ValueError(f"the table of {collection!r} cannot be saved: {e}") from e
    return replace(collection, images=images)


def _set_aside(collection: Collection) -> Collection:
    """Move the images whose name cannot be saved to what is skipped."""
    images = collection.images
    reasons = [_find_flaw(*names) for names in zip(images["image_id"], images["path"], strict=True)]
    bad = np.array([reason != "" for reason in reasons], bool)
    skipped = collection.skipped
    if "image_id" not in skipped:
        skipped = skipped.assign(image_id="")
    flawed = images[["image_id", "path"]][bad].assign(reason=[r for r in reasons if r])
    skipped = pd.concat([flawed[list(OURS)], skipped[list(OURS)]], ignore_index=True)
    skipped = skipped.map(_make_text).astype("str")
    if bad.all():
        raise ValueError(
            f"not one of the {len(images)} images of {collection!r} can be read; the first: "
            f"{skipped['path'].iloc[0]}: {skipped['reason'].iloc[0]}"
        )
    images = images[~bad].reset_index(drop=True)
    images = images.assign(**{name: images[name].astype("str") for name in ("image_id", "path")})
    # The other tables are of no use to an index, and may speak of the images set aside.
    rest = {"objects": make_table("objects"), "captions": make_table("captions")}
    return replace(collection, images=images, skipped=skipped, **rest)


def _find_flaw(*names: str) -> str:
    if any("\0" in name for name in names):
        return "no file can have this name: it holds a NUL character"
    if any(_make_text(name) != name for name in names):
        return "its name is no Unicode text: rename the file"
    return ""


def _make_text(text: str) -> str:
    r"""Write what is no Unicode, as bytes of a name of another encoding, as `\udcff`."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _is_storable(column: pd.Series) -> bool:
    kinds = set(map(type, column.dropna())) if column.dtype == object else set()
    if len(kinds) > 1 and (bool in kinds or not all(issubclass(k, Number) for k in kinds)):
        return False
    try:
        kind = pa.Table.from_pandas(column.rename("column").to_frame(), preserve_index=False)
        kind = kind.schema.field("column").type
    except Exception:  # pyarrow's many, OverflowError, UnicodeError, those of other columns
        return False
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or pa.types.is_primitive(kind) or pa.types.is_null(kind)


def _to_json(value: Any) -> str | None:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    try:
        return json.dumps(value, default=_to_plain, sort_keys=_has_text_keys(value))
    except (TypeError, ValueError, RecursionError):  # such as keys that are no texts, or a circle
        return json.dumps(_make_text(_to_plain(value)))


def _has_text_keys(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _to_plain(value: Any) -> Any:
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
    return str(value) if isinstance(plain, np.generic) else plain  # np.longdouble stays itself


SCHEMA = 1
IMAGE_FILES = ("images.parquet", "image_vectors.npy", "failures.csv")
REGION_FILES = ("regions.parquet", "region_vectors.npy", "region_failures.csv")
FILES = ("manifest.json", *IMAGE_FILES, *REGION_FILES, STAMPS)


class IndexFolderError(RegionlabError, ValueError):
    """An index that is missing, damaged, or made by another model; says what to do."""


class Reused(NamedTuple):
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
    known: Reused,
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


def _merge_visits(known: Reused, shards: Path) -> pd.DataFrame:
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


TABLE, VECTORS, FAILURES = REGION_FILES
POLICY = ("segmenter", "everything", "encoding", "model")
PENDING = "no regions yet: call add_regions"  # the reason of images that nobody has looked at
REGION_COLUMNS = {
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
    """Return a table of no regions, with the columns and types of `REGION_COLUMNS`."""
    return pd.DataFrame(columns=list(REGION_COLUMNS)).astype(REGION_COLUMNS)


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
        A line of `REGION_COLUMNS` and a vector (d,) float32 each, in the order of the images; the
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
        "table": _digest_table_region_files(regions),
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
    if _digest_table_region_files(regions) != manifest["regions"]["table"]:
        raise ValueError(f"{TABLE} is not the table that was written with it")


def _digest_contents(index_id: str, regions: pd.DataFrame, policy: dict) -> str:
    """Hash what the regions are: the images, their masks, and how these became vectors."""
    how = [index_id, policy["encoding"], policy["model"]["precision"]]
    text = "\n".join([json.dumps(how), *regions["region_id"]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_table_region_files(regions: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for column, kind in REGION_COLUMNS.items():
        values = regions[column]
        content = "\n".join(values).encode() if kind == "str" else values.to_numpy(kind).tobytes()
        digest.update(f"\n{column}\n".encode() + content)
    return digest.hexdigest()
