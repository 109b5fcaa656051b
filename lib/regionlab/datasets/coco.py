"""COCO's layout: pictures in a folder, instances and captions in two JSON files.

Toybox is written in this layout too, and read by the same code.
"""

import json
import os
from pathlib import Path

import pandas as pd

from regionlab.collection import COLUMNS, Collection, make_table
from regionlab.datasets.captioned import drop_empty_captions

Records = list[dict]

# The keys that end up in the columns every collection has; all others are extras.
IMAGE_KEYS = {"id", "file_name", "width", "height"}
OBJECT_KEYS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}


def load_coco(
    root: Path | str,
    split: str = "val2017",
    *,
    image_dir: Path | str | None = None,
    instances: Path | str | None = None,
    captions: Path | str | None = None,
    crowd: bool = True,
) -> Collection:
    """Load a data set in COCO's layout.

    The collection holds the images that the JSON files name, on disk or not (see
    `Collection.missing_files`). Ids are COCO's, as str; boxes become XYXY; segmentations stay
    as published and are decoded by `Collection.mask`. Other keys of an image or annotation,
    and those in an annotation's `attributes`, become columns of the same name, or of
    `coco_<name>` where a required column has it. Empty captions are listed in `skipped`.

    Parameters
    ----------
    root
        The folder with `annotations/` and the pictures, or one that holds it as `coco2017/`.
    split
        Names the files: `annotations/instances_<split>.json`,
        `annotations/captions_<split>.json` (one of the two is enough), and the pictures in
        `<split>/` or `images/<split>/`.
    image_dir, instances, captions
        Where the pictures and JSON files are instead; absolute, or relative to `root`.
    crowd
        Keep the objects with `iscrowd`, whose mask covers several at once.

    Raises
    ------
    FileNotFoundError
        If the pictures' folder, a file asked for, or both JSON files are not there.
    ValueError
        If a JSON file is broken, or names an unknown image or category.
    """
    root = Path(root).expanduser().absolute()
    base = root / "coco2017" if (root / "coco2017").is_dir() else root
    instances_file = _find_json(root, base / f"annotations/instances_{split}.json", instances)
    captions_file = _find_json(root, base / f"annotations/captions_{split}.json", captions)
    files = [file for file in (instances_file, captions_file) if file]
    if not files:
        raise FileNotFoundError(_explain_missing(base, split))
    folder = _find_images(root, base, split, image_dir)
    anchor = root if folder.is_relative_to(root) else folder

    data = {file: _read_json(file) for file in files}
    try:
        images = _make_images([data[f]["images"] for f in files], folder.relative_to(anchor))
        objects = _make_objects(data.get(instances_file), crowd)
        texts, skipped = drop_empty_captions(images, _make_captions(data.get(captions_file)))
        return Collection(
            anchor, images, objects, texts, name=root.name, split=split, skipped=skipped
        )
    except (TypeError, ValueError) as e:
        raise ValueError(f"{' or '.join(map(str, files))}: {e}") from e


def _find_json(root: Path, usual: Path, given: Path | str | None) -> Path | None:
    if given is None:
        return usual if usual.is_file() else None
    if not (root / given).is_file():
        raise FileNotFoundError(f"no such annotation file: {root / given}")
    return root / given


def _find_images(root: Path, base: Path, split: str, given: Path | str | None) -> Path:
    folders = [base / split, base / "images" / split] if given is None else [root / given]
    for folder in folders:
        if folder.is_dir():
            return Path(os.path.normpath(folder))
    raise FileNotFoundError(f"no folder of images: looked for {' and '.join(map(str, folders))}")


def _explain_missing(base: Path, split: str) -> str:
    where = "COCO's images and annotations can be had from cocodataset.org."
    if not base.is_dir():
        return (
            f"no such folder: {base}. It should hold annotations/ and the pictures of {split!r}. "
            f"{where}"
        )
    folder = base / "annotations" if (base / "annotations").is_dir() else base
    found = sorted(entry.name for entry in folder.iterdir())
    return (
        f"no annotations of split {split!r} in {base}: looked for "
        f"annotations/instances_{split}.json and annotations/captions_{split}.json; "
        f"{folder} holds {', '.join(found[:12]) or 'nothing'}. {where}"
    )


def _read_json(file: Path) -> dict:
    try:
        data = json.loads(file.read_bytes())
    except ValueError as e:  # broken JSON (the message says where), or no UTF-8
        raise ValueError(f"{file} is not valid JSON: {e}") from e
    for key in ("images", "annotations"):
        records = data.get(key) if isinstance(data, dict) else None
        if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
            raise ValueError(f"{file} is not in COCO's format: it has no list of objects {key!r}")
    return data


def _make_images(lists: list[Records], folder: Path) -> pd.DataFrame:
    images: dict[str, dict] = {}
    for records in lists:
        ids = _column(records, "id")
        if len(set(ids)) < len(ids):
            twice = next(id_ for id_ in ids if ids.count(id_) > 1)
            raise ValueError(f"image id {twice} comes more than once")
        for id_, record, name in zip(ids, records, _column(records, "file_name"), strict=True):
            known = images.setdefault(str(id_), record)
            if known["file_name"] != name:
                raise ValueError(f"image {id_} is both {known['file_name']} and {name}")

    records = list(images.values())
    columns = {
        "image_id": images,
        "path": [(folder / record["file_name"]).as_posix() for record in records],
        "width": [record.get("width", -1) for record in records],
        "height": [record.get("height", -1) for record in records],
    }
    extras = [{k: v for k, v in record.items() if k not in IMAGE_KEYS} for record in records]
    return make_table("images", columns | _make_extra_columns("images", extras))


def _make_objects(data: dict | None, crowd: bool) -> pd.DataFrame:
    if data is None:
        return make_table("objects")
    classes = data.get("categories", [])
    categories = dict(zip(_column(classes, "id"), _column(classes, "name"), strict=True))
    records = [r for r in data["annotations"] if crowd or not r.get("iscrowd")]
    ids = _column(records, "id")
    corners = [_box_xywh_to_xyxy(record) for record in records]
    columns = {
        "object_id": map(str, ids),
        "image_id": map(str, _column(records, "image_id")),
        "category": [_find_category(record, categories) for record in records],
        **{name: [box[i] for box in corners] for i, name in enumerate(("x0", "y0", "x1", "y1"))},
        "area": [record.get("area", float("nan")) for record in records],
        "iscrowd": [bool(record.get("iscrowd")) for record in records],
        "segmentation": [record.get("segmentation") or None for record in records],
    }
    return make_table("objects", columns | _make_extra_columns("objects", _object_extras(records)))


def _make_captions(data: dict | None) -> pd.DataFrame:
    if data is None:
        return make_table("captions")
    records = data["annotations"]
    columns = {
        "caption_id": map(str, _column(records, "id")),
        "image_id": map(str, _column(records, "image_id")),
        "caption": _column(records, "caption"),
    }
    return make_table("captions", columns)


def _column(records: Records, key: str) -> list:
    for record in records:
        if key not in record:
            raise ValueError(f"no {key!r} in {str(record)[:200]}")
    return [record[key] for record in records]


def _box_xywh_to_xyxy(record: dict) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = map(float, record["bbox"])
    except (KeyError, TypeError, ValueError) as e:
        shown = record.get("bbox")
        raise ValueError(f"bbox of annotation {record['id']} must be 4 numbers, not {shown}") from e
    return x, y, x + width, y + height


def _find_category(record: dict, categories: dict[int, str]) -> str:
    category = record.get("category_id")
    if category not in categories:
        raise ValueError(f"annotation {record['id']} has the unknown category_id {category}")
    return categories[category]


def _object_extras(records: Records) -> Records:
    extras = [{k: v for k, v in record.items() if k not in OBJECT_KEYS} for record in records]
    for extra in extras:
        if isinstance(extra.get("attributes"), dict):
            extra |= extra.pop("attributes")
    return extras


def _make_extra_columns(table: str, extras: Records) -> dict[str, list]:
    keys = dict.fromkeys(key for extra in extras for key in extra)
    return {
        f"coco_{key}" if key in COLUMNS[table] else key: [extra.get(key) for extra in extras]
        for key in keys
    }
