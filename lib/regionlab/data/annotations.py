"""COCO's annotations as tables of objects and captions; a bad record is left out and listed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from regionlab.data.collection import COLUMNS, make_table
from regionlab.data.decoding import Header, read_headers, turn_box
from regionlab.data.masks import find_broken_counts
from regionlab.data.records import (
    BadValue,
    Source,
    is_number,
    make_extra_columns,
    say,
    show,
    take_file_name,
    take_flag,
    take_id,
    take_size,
    text_only,
)

Size = tuple[int, int]  # width and height of the image in pixels


def read_segmentation(value: object, size: Size | None) -> list | dict | None:
    """Return a segmentation as `rle.segmentation_to_rle` takes it, None where none is given.

    A polygon that is not in a list is put in one, and runs such as 10.0 become whole numbers.
    The text of a compressed RLE is not read here, see `rle_runs.find_broken_counts`.

    Parameters
    ----------
    value
        As the JSON file holds it.
    size
        Of the image it was drawn on; None where this is not known.

    Raises
    ------
    BadValue
        If it is nothing that encloses pixels of an image of this size.
    """
    if value is None or value in ([], {}):
        return None
    if isinstance(value, dict):
        return _read_rle(value, size)
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
        raise BadValue(f"segmentation {show(polygon)} lies far outside an image of {_say(size)}")


def _read_rle(rle: dict, size: Size | None) -> dict:
    sides, counts = rle.get("size"), rle.get("counts")
    if not isinstance(sides, list) or len(sides) != 2:
        raise BadValue(f"the RLE's size is {show(sides)}, not [height, width]")
    take_size({"height": sides[0], "width": sides[1]})
    if size and sides != [size[1], size[0]]:
        raise BadValue(f"the RLE's size is {show(sides)}, but the image's is {_say(size)}")
    if isinstance(counts, str):
        return rle
    if not isinstance(counts, list) or not _are_runs(counts):
        raise BadValue(f"the RLE's counts are {show(counts)}, not runs of pixels")
    if sum(counts) != sides[0] * sides[1]:
        raise BadValue(f"the RLE's runs cover {show(sum(counts))} pixels, not {show(sides)}")
    return {"size": [int(side) for side in sides], "counts": [int(run) for run in counts]}


def _are_runs(counts: Sequence) -> bool:
    numbers = set(map(type, counts)) <= {int, float}
    return numbers and all(run >= 0 and run % 1 == 0 for run in counts)


def _say(size: Size) -> str:
    return f"{size[0]} x {size[1]} pixels"


Size_upright = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Drawn:
    """What the annotations of an image were drawn on.

    Attributes
    ----------
    size
        Of the pixels they were drawn on; None where it is not known.
    upright
        Of the picture as it is read; None where it is not known.
    orientation
        Of EXIF, by which what is drawn has to be turned; 1 for not at all.
    fault
        Why nothing drawn on it can be used, "" for no reason.
    """

    size: Size_upright | None
    upright: Size_upright | None
    orientation: int = 1
    fault: str = ""

    def turn_box(self, box: tuple[float, float, float, float]) -> tuple:
        """Turn a box, XYXY in pixels, upright."""
        return box if self.orientation == 1 else turn_box(box, self.size, self.orientation)


def find_drawn(
    files: Mapping[str, Path], sizes: Mapping[str, Size_upright | None]
) -> dict[str, Drawn]:
    """Find out what the annotations of images were drawn on, from the headers of the pictures.

    A size in the annotation file that is that of the stored pixels means these; one that is
    that of the upright picture means this. Where both are the same (mirrored and half turns,
    squares) or the file gives no size, it is as with most of the other turned pictures; where
    they do not tell either, the stored pixels, which COCO's own tools and those of its time
    read.

    Parameters
    ----------
    files
        Where each picture lies, by image id. Of pictures that cannot be opened the size of the
        annotation file counts.
    sizes
        Width and height by image id, as the annotation file has them; None where it has none.
    """
    headers = dict(zip(files, read_headers(files.values()), strict=True))
    told = [_tell(header, sizes[image_id]) for image_id, header in headers.items() if header]
    by_default = "upright" if told.count("upright") > told.count("stored") else "stored"
    return {
        image_id: _decide(header, sizes[image_id], by_default)
        for image_id, header in headers.items()
    }


def _tell(header: Header, size: Size_upright | None) -> str:
    """Return "stored" or "upright", or "" where the size fits both or neither."""
    if header.stored == header.upright:
        return ""
    return {header.stored: "stored", header.upright: "upright"}.get(size, "")


def _decide(header: Header | None, size: Size_upright | None, by_default: str) -> Drawn:
    if header is None:
        return Drawn(size, size)
    if size not in (None, header.stored, header.upright):
        width, height = header.upright
        fault = (
            f"it was drawn on {size[0]} x {size[1]} pixels, but the picture has {width} x {height}"
        )
        return Drawn(size, header.upright, fault=fault)
    if (_tell(header, size) or by_default) == "upright":
        return Drawn(header.upright, header.upright)
    return Drawn(header.stored, header.upright, header.orientation)


# The keys that end up in the columns every collection has; all others are extras.
IMAGE_KEYS = {"id", "file_name", "width", "height"}


@dataclass
class ImageRecord:
    """An image that the files name: its name, size as they have it (or None), other keys."""

    name: str
    size: Size_upright | None
    extras: dict


def read_images(source: Source, images: dict[str, ImageRecord]) -> None:
    """Add a file's images to those known by id, and note which its annotations may name.

    An id that comes again with another file name keeps its first image, but its annotations
    could be of either: they are left out.
    """
    names: dict[str, str] = {}
    unclear = set()
    for place, record in source.records("images"):
        try:
            image_id = take_id(record)
            name = take_file_name(record)
        except BadValue as e:
            source.fault(f"{place}, id {show(record.get('id'))}", e)
            continue
        known = names.get(image_id)
        if known is None and image_id in images and images[image_id].name != name:
            known = images[image_id].name
        if known is not None:
            source.fault(f"{place}, id {show(image_id)}", f"the id is that of {show(known)}, too")
            unclear |= {image_id} if known != name else set()
            continue
        names[image_id] = name
        if image_id not in images:
            what = f"image {show(image_id)}"
            size = source.take(_take_any_size, record, what)
            extras = {key: value for key, value in record.items() if key not in IMAGE_KEYS}
            images[image_id] = ImageRecord(name, size, extras)
    source.images = set(names) - unclear


def make_images(
    images: Mapping[str, ImageRecord],
    paths: Mapping[str, str],
    drawn: Mapping[str, Drawn],
    source: Source,
) -> pd.DataFrame:
    """Make the table of images; the size of a picture that was looked at is its own, upright."""
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


def _take_any_size(record: dict) -> Size_upright | None:
    return take_size(record) if "width" in record or "height" in record else None


# The keys that end up in the columns every collection has; all others are extras.
OBJECT_KEYS = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}


def find_annotated(source: Source) -> set[str]:
    """Return the ids of the images that the annotations of a file name."""
    records = source.data.get("annotations")
    named = set()
    for record in records if isinstance(records, list) else []:
        try:
            named.add(take_id(record, "image_id"))
        except (AttributeError, BadValue):
            continue
    return named & source.images


def read_categories(source: Source) -> dict[str, str | BadValue]:
    """Return the name of each category by id, or why it has none."""
    names: dict[str, str | BadValue] = {}
    for place, record in source.records("categories") if "categories" in source.data else ():
        what = f"{place}, id {show(record.get('id'))}"
        try:
            category_id = take_id(record)
        except BadValue as e:
            source.fault(what, e)
            continue
        try:
            name = text_only(record, "name")
            known = names.get(category_id, name)
            if known != name:
                raise BadValue(f"the id names two categories, {show(str(known))} and {show(name)}")
            names[category_id] = name
        except BadValue as e:
            source.fault(what, e)
            names[category_id] = e
    return names


def make_objects(
    source: Source, paths: Mapping[str, str], drawn: Mapping[str, Drawn], *, crowd: bool
) -> pd.DataFrame:
    """Make the table of objects, in pixels of the upright pictures.

    Parameters
    ----------
    paths
        Of the images, by id.
    drawn
        How the images lie that the annotations were drawn on, by id, see `upright`.
    crowd
        Keep those with `iscrowd`.
    """
    categories = read_categories(source)
    seen: set[str] = set()
    rows, extras, texts = [], [], []
    for place, record in source.records("annotations"):
        image_id = None
        try:
            if take_flag(record, "iscrowd") and not crowd:
                continue
            image_id = _take_image(record, source)
            object_id = _take_new_id(record, seen)
            category = _find_category(record, categories)
            lying = drawn[image_id]
            if lying.fault:
                raise BadValue(lying.fault)
            box = lying.turn_box(_take_box(record, lying.size))
        except BadValue as e:
            source.fault(f"{place}, id {show(record.get('id'))}", e, paths.get(image_id))
            continue
        what = f"annotation {show(object_id)}"
        path = paths[image_id]
        area = source.take(_take_area, record, what, path)
        try:
            outline = read_segmentation(record.get("segmentation"), lying.size)
        except BadValue as e:
            source.fault(what, f"kept without a mask: {e}", path)
            outline = None
        if isinstance(outline, dict) and isinstance(outline["counts"], str):
            texts.append(len(rows))
        row = (object_id, image_id, category, *box, area, take_flag(record, "iscrowd"), outline)
        rows.append(list(row))
        extras.append(_object_extras(record))
    _drop_broken_texts(source, rows, texts, paths)
    names = list(COLUMNS["objects"])
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    ids = [row[0] for row in rows]
    more = make_extra_columns("objects", extras, ids, source)
    return make_table("objects", columns | more if rows else None)


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


def _find_category(record: dict, categories: Mapping[str, str | BadValue]) -> str:
    category = categories.get(take_id(record, "category_id"))
    if isinstance(category, str):
        return category
    reason = category or "which is no category of the file"
    raise BadValue(f"{say(record, 'category_id')}: {reason}")


def _take_box(record: dict, size: Size_upright | None) -> tuple[float, float, float, float]:
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise BadValue(f"{say(record, 'bbox')}, not 4 numbers [x, y, width, height]")
    x, y, width, height = map(float, box)
    corners = (x, y, x + width, y + height)
    if width < 0 or height < 0 or not all(map(math.isfinite, corners)):
        raise BadValue(f"{say(record, 'bbox')}, whose sides are below 0 or beyond all numbers")
    if size and not _is_near(corners, size):
        raise BadValue(f"{say(record, 'bbox')}, but the image has {size[0]} x {size[1]} pixels")
    return corners


def _is_near(box: tuple[float, float, float, float], size: Size_upright) -> bool:
    """Tell whether a box meets the image and leaves it by no more than the image's own size."""
    (x0, y0, x1, y1), (width, height) = box, size
    meets = x0 <= width and y0 <= height and x1 >= 0 and y1 >= 0
    return meets and min(x0 + width, y0 + height, 2 * width - x1, 2 * height - y1) >= 0


def _take_area(record: dict) -> float | None:
    area = record.get("area")
    if area is not None and (not is_number(area) or area < 0):
        raise BadValue(f"{say(record, 'area')}, no number of pixels")
    return None if area is None else float(area)


def _drop_broken_texts(
    source: Source, rows: list[list], texts: list[int], paths: Mapping[str, str]
) -> None:
    """Take away the compressed RLEs that cannot be decoded."""
    rles = [rows[row][-1] for row in texts]
    pixels = [int(rle["size"][0]) * int(rle["size"][1]) for rle in rles]
    broken = find_broken_counts([rle["counts"] for rle in rles], pixels)
    for position, reason in sorted(broken.items()):
        row = rows[texts[position]]
        row[-1] = None
        shown = f"kept without a mask: {reason}: {show(rles[position]['counts'])}"
        source.fault(f"annotation {show(row[0])}", shown, paths[row[1]])


def _object_extras(record: dict) -> dict:
    extra = {key: value for key, value in record.items() if key not in OBJECT_KEYS}
    if isinstance(extra.get("attributes"), dict):
        extra |= extra.pop("attributes")
    return extra


def make_captions(source: Source, paths: Mapping[str, str]) -> pd.DataFrame:
    """Make the table of captions."""
    seen: set[str] = set()
    rows = []
    for place, record in source.records("annotations"):
        image_id = None
        try:
            image_id = _take_image(record, source)
            caption = text_only(record, "caption")
            rows.append((_take_new_id(record, seen), image_id, caption))
        except BadValue as e:
            source.fault(f"{place}, id {show(record.get('id'))}", e, paths.get(image_id))
    columns = dict(zip(COLUMNS["captions"], zip(*rows, strict=True), strict=True)) if rows else None
    return make_table("captions", columns)
