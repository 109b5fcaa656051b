"""The files of an index: tables of rows, a vector each, with their failures and one manifest.

Images and regions are two tables of one kind. Nothing of an index is ever changed in place.
"""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection
from regionlab.util.errors import InputError, RegionlabError
from regionlab.util.files import hash_file

SCHEMA = 1
STAMPS = "stamps.json"
IMAGE_FILES = ("images.parquet", "image_vectors.npy", "failures.csv")
REGION_FILES = ("regions.parquet", "region_vectors.npy", "region_failures.csv")
FILES = ("manifest.json", *IMAGE_FILES, *REGION_FILES, STAMPS)
FAILURE_COLUMNS = ["image_id", "path", "reason"]
REGION_CONFIG = ("segmenter", "everything", "encoding", "model")  # decides what the regions are
REGION_COLUMNS = {
    "region_id": "str", "image_id": "str", "row": "int64",
    "x0": "float64", "y0": "float64", "x1": "float64", "y1": "float64",
    "area": "int64", "quality": "float32", "stability": "float32", "rle": "str",
}  # fmt: skip
PENDING = "no regions yet: call add_regions"  # the reason of images that nobody has looked at
BLOCK = 4096  # vectors in memory at once


class IndexFolderError(RegionlabError, ValueError):
    """An index that is missing, damaged, or made by another model; says what to do."""


class Table(NamedTuple):
    """Rows, their vectors (n, d) float32, and the images that are missing, each with a reason."""

    rows: pd.DataFrame | None
    vectors: np.ndarray | None
    failures: pd.DataFrame | None


# ---- tables of any kind


def _write_table(
    new: Path,
    names: tuple[str, str, str],
    table: Table,
    blocks: Iterable[np.ndarray],
    dim: int,
    unchanged: Path | None,
) -> dict[str, Any]:
    """Write a table and return what the manifest says of it.

    The vectors come in blocks, or are those of the index in the folder `unchanged`.
    """
    rows_file, vectors_file, failures_file = (new / name for name in names)
    table.rows.to_parquet(rows_file)
    if unchanged is not None:
        link_or_copy(unchanged / vectors_file.name, vectors_file)
    else:
        write_vectors(vectors_file, blocks, (len(table.rows), dim))
    write_failures(failures_file, table.failures)
    return {
        "count": len(table.rows),
        "vectors_sample": digest_sample(open_vectors(vectors_file)),
        "failures": len(table.failures),
    }


def _read_table(folder: Path, names: tuple[str, str, str], made: dict, dim: int) -> Table:
    """Read a table; ValueError if it is not what the manifest says of it."""
    rows = pd.read_parquet(folder / names[0])
    vectors, failures = open_vectors(folder / names[1]), read_failures(folder / names[2])
    expected = (made["count"], dim)
    if vectors.shape != expected or vectors.dtype != np.float32 or len(rows) != expected[0]:
        raise ValueError(
            f"its manifest says {expected[0]} {Path(names[0]).stem} of {dim} dimensions, the "
            f"table has {len(rows)}, the vectors are {vectors.shape} {vectors.dtype}"
        )
    if digest_sample(vectors) != made["vectors_sample"]:
        raise ValueError(f"{names[1]} is not the file that was written with it")
    if len(failures) != made["failures"]:
        raise ValueError(f"{names[2]} does not list {made['failures']} files")
    return Table(rows, vectors, failures)


# ---- images


def write_images(
    new: Path,
    folder: Path,
    collection: Collection,
    model: dict[str, Any],
    build_hash: str,
    image_log: pd.DataFrame,
    blocks: Iterable[np.ndarray],
    *,
    unchanged: Path | None = None,
) -> None:
    """Write an index without regions.

    Parameters
    ----------
    new, folder
        Where to write, and where the index will lie: its images are recorded as seen from there.
    collection
        All images of the index. Its `skipped` may have a column `image_id`.
    model
        `space`, `model` and `dim` of the vectors.
    build_hash
        What decided the index, to know it again.
    image_log
        `width`, `height`, `sha256`, `reason` (empty unless unreadable) and `seconds` of each.
    blocks
        The vectors of the images that could be read, (m, d) float32 each.
    unchanged
        Folder of an index with the very vectors, if there is one.

    Raises
    ------
    InputError
        If not one image can be read.
    """
    read = (image_log["reason"] == "").to_numpy()
    if not read.any():
        raise InputError(
            f"not one of the {len(collection)} images of {collection!r} can be read; the first: "
            f"{collection.images['path'].iloc[0]}: {image_log['reason'].iloc[0]}"
        )
    images = collection.images.assign(**image_log[["width", "height", "sha256"]])
    images = images[read].reset_index(drop=True)
    unread = collection.images.assign(reason=image_log["reason"])[~read]
    skipped = collection.skipped.reindex(columns=FAILURE_COLUMNS, fill_value="")
    table = Table(images, None, pd.concat([unread[FAILURE_COLUMNS], skipped]))
    root = collection.root.resolve()
    manifest = {
        "schema": SCHEMA,
        "id": _digest_images(images, model),
        "plan": build_hash,
        **model,
        "collection": collection.name,
        "split": collection.split,
        "title": collection.title,
        "root": str(root),
        "root_from_here": os.path.relpath(root, folder),
        "regions": None,
        **_write_table(new, IMAGE_FILES, table, blocks, model["dim"], unchanged),
        "seconds": round(float(image_log["seconds"].sum()), 3),
        "files": {name: hash_file(new / name) for name in IMAGE_FILES},
    }
    write_manifest(new, manifest)


def read_images(folder: Path, manifest: dict[str, Any]) -> Table:
    """Read the images of an index; ValueError if they are not those written with the manifest."""
    table = _read_table(folder, IMAGE_FILES, manifest, manifest["dim"])
    if _digest_images(table.rows, manifest) != manifest["id"]:
        raise ValueError("images.parquet is not the table that was written with it")
    return table


def _digest_images(images: pd.DataFrame, model: dict) -> str:
    digest = hashlib.sha256(f"{model['space']} {model['model']['precision']}".encode())
    for column in ("image_id", "path", "sha256"):
        digest.update("\n".join(["", column, *images[column]]).encode())
    return digest.hexdigest()[:16]


def find_root(folder: Path, manifest: dict) -> Path:
    """Return the folder of the images: where it lies from the index, or else by its own path."""
    beside, recorded = (folder / manifest["root_from_here"]).resolve(), Path(manifest["root"])
    return beside if beside.is_dir() or not recorded.is_dir() else recorded


# ---- regions


def get_region_config(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what decided the regions of an index."""
    return {key: manifest["regions"][key] for key in REGION_CONFIG}


def name_region(image_id: str, counts: str) -> str:
    """Return the id of a region: a hash of its image's id and its mask's RLE."""
    return hashlib.sha256(f"{image_id} {counts}".encode()).hexdigest()[:16]


def write_regions(
    new: Path,
    folder: Path,
    config: dict[str, Any],
    regions: pd.DataFrame,
    image_log: pd.DataFrame,
    blocks: Iterable[np.ndarray],
    *,
    unchanged: Path | None = None,
) -> None:
    """Write the index in `folder` once more, with its regions, into the folder `new`.

    Parameters
    ----------
    config
        `REGION_CONFIG`, as plain JSON values; it becomes part of the manifest.
    regions
        `REGION_COLUMNS`, in the order of the images.
    image_log
        `reason` (empty unless regions are missing) and `seconds` of each image.
    blocks, unchanged
        As for `write_images`.

    Raises
    ------
    InputError
        If not one image could be read.
    """
    for name in (*IMAGE_FILES, *([STAMPS] if (folder / STAMPS).exists() else [])):
        link_or_copy(folder / name, new / name)
    images, reasons = pd.read_parquet(new / "images.parquet"), image_log["reason"]
    failures = images.assign(reason=reasons)[reasons != ""][FAILURE_COLUMNS]
    if len(failures) == len(images) and not len(regions) and PENDING not in set(reasons):
        first = failures.iloc[0]
        raise InputError(
            f"regions can be found in not one of the {len(images)} images of the index {folder}; "
            f"the first: {first['path']}: {first['reason']}"
        )
    manifest = read_manifest(folder)
    table = Table(regions, None, failures)
    seen = pd.Index(np.flatnonzero(reasons == ""))
    manifest["regions"] = {
        "id": _digest_region_ids(manifest["id"], regions, config),
        **config,
        "images_without": len(seen.difference(regions["row"])),
        "table": _digest_regions(regions),
        **_write_table(new, REGION_FILES, table, blocks, manifest["dim"], unchanged),
        "seconds": round(float(image_log["seconds"].sum()), 3),
    }
    # What was written before checksums must not get one by chance: nobody knows what it was.
    checksums = {name: manifest.get("files", {}).get(name) for name in IMAGE_FILES}
    checksums |= {name: hash_file(new / name) for name in REGION_FILES}
    manifest["files"] = {name: digest for name, digest in checksums.items() if digest}
    write_manifest(new, manifest)


def read_regions(folder: Path, manifest: dict[str, Any], images: pd.DataFrame) -> Table:
    """Read an index's regions, three None if it has none; ValueError if they are of another."""
    if manifest["regions"] is None:
        return Table(None, None, None)
    table = _read_table(folder, REGION_FILES, manifest["regions"], manifest["dim"])
    regions, name = table.rows, REGION_FILES[0]
    rows = regions["row"].to_numpy()
    if len(rows) and not (0 <= rows[0] and rows[-1] < len(images) and (np.diff(rows) >= 0).all()):
        raise ValueError(f"the rows in {name} do not ascend within the {len(images)} images")
    if not regions["region_id"].is_unique:
        raise ValueError(f"{name} holds a region_id twice")
    if not np.array_equal(images["image_id"].to_numpy()[rows], regions["image_id"]):
        raise ValueError(f"{name} belongs to other images")
    if _digest_regions(regions) != manifest["regions"]["table"]:
        raise ValueError(f"{name} is not the table that was written with it")
    return table


def _digest_region_ids(index_id: str, regions: pd.DataFrame, config: dict) -> str:
    """Hash what the regions are: the images, their masks, and how these became vectors."""
    how = [index_id, config["encoding"], config["model"]["precision"]]
    text = "\n".join([json.dumps(how), *regions["region_id"]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest_regions(regions: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for column, kind in REGION_COLUMNS.items():
        values = regions[column]
        content = "\n".join(values).encode() if kind == "str" else values.to_numpy(kind).tobytes()
        digest.update(f"\n{column}\n".encode() + content)
    return digest.hexdigest()


# ---- manifest


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


def damaged(folder: Path, reason: object) -> IndexFolderError:
    """Return the error that says so, and what to do."""
    return IndexFolderError(f"the index at {folder} is damaged: {reason}; build it again")


# ---- failures and vectors


def write_failures(path: Path, failures: pd.DataFrame) -> None:
    r"""Write `FAILURE_COLUMNS` as text, every field in quotes.

    Line breaks, quotes, NUL, blanks and "NA" come back as they were; bytes of a name that are
    no Unicode as `\udcff` and the like.
    """
    rows = failures[FAILURE_COLUMNS].astype(object).to_numpy()
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(FAILURE_COLUMNS)
        writer.writerows(rows)


def read_failures(path: Path) -> pd.DataFrame:
    """Read what `write_failures` or `DataFrame.to_csv` wrote.

    Raises
    ------
    ValueError
        If the file is no such table.
    """
    with open(path, encoding="utf-8", newline="") as file:
        try:
            header, *rows = csv.reader(file, strict=True)
        except (csv.Error, ValueError) as e:
            raise ValueError(f"{path.name} cannot be read: {e}") from e
    bad = [row for row in rows if len(row) != len(FAILURE_COLUMNS)]
    if header != FAILURE_COLUMNS or bad:
        raise ValueError(
            f"{path.name} has the columns {header}, or a line of other length: {bad[:1]}"
        )
    return pd.DataFrame(rows, columns=FAILURE_COLUMNS, dtype="str")


class StackedVectors:
    """Vectors of several files as one table (n, d), read where rows of it are asked for.

    Parameters
    ----------
    parts
        Each its number of rows, and a function that returns them, (m, d) float32.
    dim
        Their length d.
    """

    def __init__(self, parts: Sequence[tuple[int, Callable[[], np.ndarray]]], dim: int):
        self.parts = list(parts)
        self._ends = np.cumsum([0, *(count for count, _ in parts)])
        self.shape = (int(self._ends[-1]), dim)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of some rows, (k, d) float32."""
        found = np.empty((len(rows), self.shape[1]), np.float32)
        owners = np.searchsorted(self._ends, rows, "right") - 1
        for owner in np.unique(owners):
            chosen = owners == owner
            found[chosen] = self.parts[owner][1]()[rows[chosen] - self._ends[owner]]
        return found


def write_vectors(path: Path, blocks: Iterable[np.ndarray], shape: tuple[int, int]) -> None:
    """Write (n, d) float32 vectors as `.npy`, block by block.

    Not through a memory map: on a full disk that ends the process, without a word.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": shape})
        for block in blocks:
            file.write(np.ascontiguousarray(block, np.float32).tobytes())


def open_vectors(path: Path) -> np.ndarray:
    """Return the vectors of a file, memory-mapped and read-only; a pickle is never loaded."""
    return np.load(path, mmap_mode="r", allow_pickle=False)


def digest_sample(vectors: np.ndarray) -> str:
    """Hash some rows from all over the file; to read all of a large one would take too long."""
    sample = np.ascontiguousarray(vectors[:: max(len(vectors) // 1000, 1)])
    return hashlib.sha256(sample.tobytes()).hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Let both names lead to the same bytes; nothing of an index is ever changed in place."""
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
