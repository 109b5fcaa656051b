"""COCO's layout: images in a folder, instances and captions in two JSON files.

A bad record is left out and listed. Toybox is written in this layout too, and read by the same
code.
"""

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from regionlab.data.collection import COLUMNS, Collection, make_skipped, make_table
from regionlab.data.images import Header, read_headers
from regionlab.data.listing import say_missing, show
from regionlab.data.masks import check_rle, turn_box
from regionlab.data.records import (
    BadValue,
    Size,
    Source,
    is_number,
    make_extra_columns,
    read_json,
    say,
    say_size,
    take_file_name,
    take_flag,
    take_id,
    take_size,
    take_text,
)
from regionlab.util.errors import InputError, MissingFileError

# The keys that end up in the columns every collection has; all others are extras.
IMAGE_KEYS = {"id", "file_name", "width", "height"}
OBJECT_KEYS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}

Box = tuple[float, float, float, float]  # XYXY in pixels


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

    A bad record is left out and listed in `skipped`, with the path of its image or of the
    annotation file. An object whose segmentation encloses nothing is kept without
    it; so is an image without its size, or an object without its area.

    Boxes and masks are those of the upright image, as `Collection.read` gives it. The headers
    of the images that hold objects are read for it: where the JSON's width and height are those
    of the pixels as stored, EXIF's turn is applied to what was drawn; objects drawn on another
    size than either are left out. Other keys with coordinates, such as keypoints, stay as given.

    Parameters
    ----------
    root
        The folder with `annotations/` and the images, or one that holds it as `coco2017/`.
    split
        Names the files: `annotations/instances_<split>.json`,
        `annotations/captions_<split>.json` (one of the two is enough), and the images in
        `<split>/` or `images/<split>/`.
    image_dir, instances, captions
        Where the images and JSON files are instead; absolute, or relative to `root`.
    crowd
        Keep the objects with `iscrowd`, whose mask covers several at once.

    Raises
    ------
    MissingFileError, InputError
        If the images or JSON files are not there; if a file is broken, or no image is left.
    """
    root = Path(root).expanduser().absolute()
    base = root / "coco2017" if (root / "coco2017").is_dir() else root
    instances_file = _find_json(root, base / f"annotations/instances_{split}.json", instances)
    captions_file = _find_json(root, base / f"annotations/captions_{split}.json", captions)
    files = [file for file in (instances_file, captions_file) if file]
    if not files:
        raise _explain_missing(base, split)
    folder = _find_image_folder(root, base, split, image_dir)
    anchor = root if folder.is_relative_to(root) else folder

    faults: list[tuple[str, str]] = []
    sources = {}
    for file in files:
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
        sources[file] = Source(name, data := read_json(file), faults)
        if not isinstance(data, dict):
            raise InputError(
                f"{file} is not in COCO's format: it has no list of objects 'images', but holds "
                f"{show(data)}"
            )
    records: dict[str, _Image] = {}
    for source in sources.values():
        _read_images(source, records)
    if not records:
        first = f"{len(faults):,} left out, the first: {': '.join(faults[0])}" if faults else ""
        what = first or "it names no image"
        raise InputError(f"{' or '.join(map(str, files))}: no image is left: {what}")
    place = folder.relative_to(anchor)
    paths = {image_id: (place / record.name).as_posix() for image_id, record in records.items()}
    drawn, objects, texts = {}, make_table("objects"), make_table("captions")
    if instances_file:
        named = _find_annotated(sources[instances_file])
        sizes = {image_id: image.size for image_id, image in records.items() if image_id in named}
        drawn = _find_drawn({image_id: anchor / paths[image_id] for image_id in sizes}, sizes)
        objects = _make_objects(sources[instances_file], paths, drawn, crowd=crowd)
    if captions_file:
        texts = _make_captions(sources[captions_file], paths)
    return Collection(
        anchor,
        _make_images(records, paths, drawn, sources[files[0]]),
        objects,
        texts,
        name=root.name,
        split=split,
        skipped=make_skipped(faults),
        turned={id_: each.orientation for id_, each in drawn.items() if each.orientation != 1},
    )


def _find_json(root: Path, usual: Path, given: Path | str | None) -> Path | None:
    if given is None:
        return usual if usual.is_file() else None
    if not (root / given).is_file():
        raise MissingFileError(f"no such annotation file: {root / given}")
    return root / given


def _find_image_folder(root: Path, base: Path, split: str, given: Path | str | None) -> Path:
    folders = [base / split, base / "images" / split] if given is None else [root / given]
    for folder in folders:
        if folder.is_dir():
            return Path(os.path.normpath(folder))
    raise MissingFileError(f"no folder of images: looked for {' and '.join(map(str, folders))}")


def _explain_missing(base: Path, split: str) -> MissingFileError:
    where = "COCO's images and annotations can be had from cocodataset.org."
    names = [f"annotations/{kind}_{split}.json" for kind in ("instances", "captions")]
    if base.is_dir():
        place = base / "annotations" if (base / "annotations").is_dir() else base
        return say_missing(f"annotations of split {split!r}", place, names, where)
    what = f"It should hold annotations/ and the pictures of {split!r}. {where}"
    return MissingFileError(f"no such folder: {base}. {what}")


@dataclass
class _Image:
    """An image that the files name: its name, size as they have it (or None), other keys."""

    name: str
    size: Size | None
    extras: dict


def _read_images(source: Source, images: dict[str, _Image]) -> None:
    """Add a file's images to those known by id, and note which its annotations may name.

    An id that comes again with another file name keeps its first image, but its annotations
    could be of either: they are left out.
    """
    names: dict[str, str] = {}
    unclear = set()
    for place, record in source.records("images"):
        try:
            image_id, name = take_id(record), take_file_name(record)
        except BadValue as e:
            source.fault_record(place, record, e)
            continue
        other = images[image_id].name if image_id in images else name
        known = names.get(image_id, other if other != name else None)
        if known is not None:
            source.fault(f"{place}, id {show(image_id)}", f"the id is that of {show(known)}, too")
            unclear |= {image_id} if known != name else set()
            continue
        names[image_id] = name
        if image_id not in images:
            size = None
            if "width" in record or "height" in record:
                size = source.take(take_size, record, f"image {show(image_id)}")
            extras = {key: value for key, value in record.items() if key not in IMAGE_KEYS}
            images[image_id] = _Image(name, size, extras)
    source.images = set(names) - unclear


def _make_images(
    images: Mapping[str, _Image],
    paths: Mapping[str, str],
    drawn: Mapping[str, "_Drawn"],
    source: Source,
) -> pd.DataFrame:
    """Make the table of images; the size of an image that was looked at is its own, upright."""
    sizes = [
        drawn[image_id].upright if image_id in drawn else image.size
        for image_id, image in images.items()
    ]
    columns = {
        "image_id": images,
        "path": [paths[image_id] for image_id in images],
        "width": [size[0] if size else -1 for size in sizes],
        "height": [size[1] if size else -1 for size in sizes],
    }
    extras = [image.extras for image in images.values()]
    return make_table("images", columns | make_extra_columns("images", extras, images, source))


@dataclass(frozen=True)
class _Drawn:
    """What the annotations of an image were drawn on."""

    size: Size | None  # of the pixels they were drawn on; None where it is not known
    upright: Size | None  # of the image as it is read; None where it is not known
    orientation: int = 1  # of EXIF, by which what is drawn has to be turned
    fault: str = ""  # why nothing drawn on it can be used


def _find_drawn(files: Mapping[str, Path], sizes: Mapping[str, Size | None]) -> dict[str, _Drawn]:
    """Find out what the annotations of images were drawn on, from the headers of the images.

    The size in the annotation file tells whether the stored pixels or the upright image are meant.
    Where both are the same (mirrored and half turns, squares) or the file gives no size, it is as
    with most of the other turned images; where they do not tell either, the stored pixels, which
    COCO's own tools read. Of images that cannot be opened the file's size counts.
    """
    headers = dict(zip(files, read_headers(files.values()), strict=True))
    told = [_tell(header, sizes[image_id]) for image_id, header in headers.items() if header]
    by_default = "upright" if told.count("upright") > told.count("stored") else "stored"
    return {id_: _decide(header, sizes[id_], by_default) for id_, header in headers.items()}


def _tell(header: Header, size: Size | None) -> str:
    """Return "stored" or "upright", or "" where the size fits both or neither."""
    if header.stored == header.upright:
        return ""
    return {header.stored: "stored", header.upright: "upright"}.get(size, "")


def _decide(header: Header | None, size: Size | None, by_default: str) -> _Drawn:
    if header is None:
        return _Drawn(size, size)
    if size not in (None, header.stored, header.upright):
        there = say_size(header.upright).removesuffix(" pixels")
        fault = f"it was drawn on {say_size(size)}, but the picture has {there}"
        return _Drawn(size, header.upright, fault=fault)
    if (_tell(header, size) or by_default) == "upright":
        return _Drawn(header.upright, header.upright)
    return _Drawn(header.stored, header.upright, header.orientation)


def _find_annotated(source: Source) -> set[str]:
    """Return the ids of the images that the annotations of a file name."""
    records, named = source.data.get("annotations"), set()
    for record in records if isinstance(records, list) else []:
        with suppress(AttributeError, BadValue):
            named.add(take_id(record, "image_id"))
    return named & source.images


def _read_categories(source: Source) -> dict[str, str | BadValue]:
    """Return the name of each category by id, or why it has none."""
    names: dict[str, str | BadValue] = {}
    for place, record in source.records("categories") if "categories" in source.data else ():
        category_id = None
        try:
            category_id = take_id(record)
            name = take_text(record, "name")
            known = names.get(category_id, name)
            if known != name:
                raise BadValue(f"the id names two categories, {show(str(known))} and {show(name)}")
            names[category_id] = name
        except BadValue as e:
            source.fault_record(place, record, e)
            if category_id is not None:
                names[category_id] = e
    return names


def _make_objects(
    source: Source, paths: Mapping[str, str], drawn: Mapping[str, _Drawn], *, crowd: bool
) -> pd.DataFrame:
    """Make the table of objects, in pixels of the upright images; `crowd` keeps `iscrowd`."""
    categories, seen = _read_categories(source), set()
    rows, extras = [], []
    for place, record in source.records("annotations"):
        image_id = None
        try:
            is_crowd = take_flag(record, "iscrowd")
            if is_crowd and not crowd:
                continue
            image_id = _take_image(record, source)
            object_id = _take_new_id(record, seen)
            category = _take_category(record, categories)
            on = drawn[image_id]
            if on.fault:
                raise BadValue(on.fault)
            box = _take_box(record, on.size)
        except BadValue as e:
            source.fault_record(place, record, e, paths.get(image_id))
            continue
        if on.orientation != 1:
            box = turn_box(box, on.size, on.orientation)
        what, path = f"annotation {show(object_id)}", paths[image_id]
        area = source.take(_take_area, record, what, path)
        try:
            outline = _take_segmentation(record.get("segmentation"), on.size)
        except BadValue as e:
            source.fault(what, f"kept without a mask: {e}", path)
            outline = None
        rows.append((object_id, image_id, category, *box, area, is_crowd, outline))
        extra = {key: value for key, value in record.items() if key not in OBJECT_KEYS}
        if isinstance(extra.get("attributes"), dict):
            extra |= extra.pop("attributes")
        extras.append(extra)
    if not rows:
        return make_table("objects")
    columns = dict(zip(COLUMNS["objects"], zip(*rows, strict=True), strict=True))
    ids = columns["object_id"]
    return make_table("objects", columns | make_extra_columns("objects", extras, ids, source))


def _make_captions(source: Source, paths: Mapping[str, str]) -> pd.DataFrame:
    seen: set[str] = set()
    rows = []
    for place, record in source.records("annotations"):
        image_id = None
        try:
            image_id = _take_image(record, source)
            caption = take_text(record, "caption")
            rows.append((_take_new_id(record, seen), image_id, caption))
        except BadValue as e:
            source.fault_record(place, record, e, paths.get(image_id))
    columns = dict(zip(COLUMNS["captions"], zip(*rows, strict=True), strict=True)) if rows else None
    return make_table("captions", columns)


def _take_image(record: dict, source: Source) -> str:
    image_id = take_id(record, "image_id")
    if image_id not in source.images:
        raise BadValue(f"{say(record, 'image_id')}, which names no image of the file, or two")
    return image_id


def _take_new_id(record: dict, seen: set[str]) -> str:
    new = take_id(record)
    if new in seen:
        raise BadValue("the id comes a second time")
    seen.add(new)
    return new


def _take_category(record: dict, categories: Mapping[str, str | BadValue]) -> str:
    unknown = BadValue("which is no category of the file")
    category = categories.get(take_id(record, "category_id"), unknown)
    if isinstance(category, BadValue):
        raise BadValue(f"{say(record, 'category_id')}: {category}")
    return category


def _take_box(record: dict, size: Size | None) -> Box:
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise BadValue(f"{say(record, 'bbox')}, not 4 numbers [x, y, width, height]")
    x, y, width, height = map(float, box)
    corners = (x, y, x + width, y + height)
    if width < 0 or height < 0 or not all(map(math.isfinite, corners)):
        raise BadValue(f"{say(record, 'bbox')}, whose sides are below 0 or beyond all numbers")
    # It must meet the image, and leave it by no more than the image's own size.
    for low, high, side in zip((x, y), corners[2:], size or (), strict=False):
        if not (-side <= low <= side and 0 <= high <= 2 * side):
            raise BadValue(f"{say(record, 'bbox')}, but the image has {say_size(size)}")
    return corners


def _take_area(record: dict) -> float | None:
    area = record.get("area")
    if area is not None and not (is_number(area) and area >= 0):
        raise BadValue(f"{say(record, 'area')}, no number of pixels")
    return area


def _take_segmentation(value: object, size: Size | None) -> list | dict | None:
    """Return a segmentation as `masks.segmentation_to_rle` takes it, None where none is given.

    A polygon that is not in a list is put in one, and runs such as 10.0 become whole numbers.
    `size` is of the image it was drawn on, None where this is not known.
    """
    if value is None or value in ([], {}):
        return None
    if isinstance(value, dict):
        return _take_rle(value, size)
    if not isinstance(value, list):
        raise BadValue(f"segmentation is {show(value)}, neither polygons nor RLE")
    polygons = value if isinstance(value[0], list) else [value]
    for polygon in polygons:
        _check_polygon(polygon, size)
    if max(map(len, polygons)) < 6:
        raise BadValue(f"no polygon of segmentation {show(value)} has three points")
    return polygons


def _check_polygon(polygon: object, size: Size | None) -> None:
    try:
        # Sums are quick, and none of them is finite where a number is not.
        good = isinstance(polygon, list) and len(polygon) % 2 == 0 and math.isfinite(sum(polygon))
    except (TypeError, OverflowError):
        good = False
    if not good:
        raise BadValue(f"segmentation holds {show(polygon)}, not [x, y, x, y, ...]")
    side = max(size or (0, 0))
    # Far outside is no drawing, and would cost COCO's own code its memory.
    if size and polygon and (min(polygon) < -side or max(polygon) > 2 * side):
        raise BadValue(
            f"segmentation {show(polygon)} lies far outside an image of {say_size(size)}"
        )


def _take_rle(rle: dict, size: Size | None) -> dict:
    sides, counts = rle.get("size"), rle.get("counts")
    if not isinstance(sides, list) or len(sides) != 2:
        raise BadValue(f"the RLE's size is {show(sides)}, not [height, width]")
    take_size({"height": sides[0], "width": sides[1]})
    if size and sides != [size[1], size[0]]:
        raise BadValue(f"the RLE's size is {show(sides)}, but the image's is {say_size(size)}")
    if isinstance(counts, str):
        try:
            check_rle(rle)
        except ValueError as e:
            raise BadValue(f"{e}: {show(counts)}") from e
        return rle
    if (
        not isinstance(counts, list)
        or not set(map(type, counts)) <= {int, float}
        or not all(run >= 0 and run % 1 == 0 for run in counts)
    ):
        raise BadValue(f"the RLE's counts are {show(counts)}, not runs of pixels")
    if sum(counts) != sides[0] * sides[1]:
        raise BadValue(f"the RLE's runs cover {show(sum(counts))} pixels, not {show(sides)}")
    return {"size": [int(side) for side in sides], "counts": [int(run) for run in counts]}
