"""COCO's layout: pictures in a folder, instances and captions in two JSON files.

Toybox is written in this layout too, and read by the same code.
"""

import json
import math
import os
from pathlib import Path

from regionlab.data.annotations import (
    ImageRecord,
    find_annotated,
    find_drawn,
    make_captions,
    make_images,
    make_objects,
    read_images,
)
from regionlab.data.captions import make_skipped
from regionlab.data.collection import Collection, make_table
from regionlab.data.records import Source, show


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
    `coco_<name>` where a required column has it.

    A bad record costs that record: it is left out and listed in `skipped`, with the path of its
    image or of the annotation file, its id, key and value. An object whose segmentation encloses
    nothing is kept without it; so is an image without its size, or an object without its area.

    Boxes and masks are those of the upright picture, as `Collection.read` gives it. The headers
    of the pictures that hold objects are read for it: where the JSON's width and height are those
    of the pixels as stored, EXIF's turn is applied to what was drawn, see `upright.find_drawn`;
    objects drawn on another size than either are left out. Other keys with coordinates, such as
    keypoints, stay as given.

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
        If a JSON file is broken, or no image is left.
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

    faults: list[tuple[str, str]] = []
    sources = {file: Source(_name(file, root), _read_json(file), faults) for file in files}
    records = _read_images(sources)
    place = folder.relative_to(anchor)
    paths = {image_id: (place / record.name).as_posix() for image_id, record in records.items()}
    drawn, objects, texts = {}, make_table("objects"), make_table("captions")
    if instances_file:
        named = find_annotated(sources[instances_file])
        sizes = {image_id: image.size for image_id, image in records.items() if image_id in named}
        drawn = find_drawn({image_id: anchor / paths[image_id] for image_id in sizes}, sizes)
        objects = make_objects(sources[instances_file], paths, drawn, crowd=crowd)
    if captions_file:
        texts = make_captions(sources[captions_file], paths)
    images = make_images(records, paths, drawn, sources[files[0]])
    return Collection(
        anchor,
        images,
        objects,
        texts,
        name=root.name,
        split=split,
        skipped=make_skipped(faults),
        turned={id_: each.orientation for id_, each in drawn.items() if each.orientation != 1},
    )


def _read_images(sources: dict[Path, Source]) -> dict[str, ImageRecord]:
    records: dict[str, ImageRecord] = {}
    for source in sources.values():
        read_images(source, records)
    if not records:
        faults = [*sources.values()][0].faults  # those of all files
        first = f"{len(faults):,} left out, the first: {': '.join(faults[0])}" if faults else ""
        reason = first or "it names no image"
        raise ValueError(f"{' or '.join(map(str, sources))}: no image is left: {reason}")
    return records


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


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
        data = _parse(file.read_bytes())
    except (ValueError, RecursionError) as e:  # the message says where, or that it is no UTF-8
        raise ValueError(f"{file} is not valid JSON: {e}") from e
    if not isinstance(data, dict):
        raise ValueError(
            f"{file} is not in COCO's format: it has no list of objects 'images', but holds "
            f"{show(data)}"
        )
    return data


def _parse(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError as e:
        if "digits" not in str(e):
            raise
        # One number of thousands of digits, which Python does not read, is that record's fault.
        return json.loads(data, parse_int=lambda text: int(text) if len(text) < 4000 else math.inf)
