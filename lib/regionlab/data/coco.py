"""COCO's layout: pictures in a folder, instances and captions in two JSON files.

Toybox is written in this layout too, and read by the same code.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
import pandas as pd

from regionlab.data.collection import COLUMNS, Collection, make_skipped, make_table
from regionlab.data.images import Header, read_headers, turn_box
from regionlab.data.listing import is_text, list_content, show
from regionlab.data.masks import find_broken_counts

MOST_PIXELS = 2**30  # of an image; more than any reader takes, and less than COCO's code counts
LONGEST_NAME, LONGEST_PATH = 255, 3000  # bytes that file systems hold


class BadValue(ValueError):  # noqa: N818  (a fault of the data, listed and not raised to users)
    """Why a record cannot be used."""


def say(record: dict, key: str) -> str:
    """Return a key and its value in short, or that there is none."""
    return f"{key} is {show(record[key])}" if key in record else f"{key} is missing"


def take_id(record: dict, key: str = "id") -> str:
    """Return an id as text: whole numbers, 7.0 too, and texts that are not empty."""
    value = record.get(key)
    if type(value) is int:
        return str(value)
    if type(value) is float and value.is_integer():
        return str(int(value))
    if type(value) is str and value and is_text(value):
        return value
    raise BadValue(f"{say(record, key)}, which is no id")


def text_only(record: dict, key: str) -> str:
    """Return a text with more than blanks in it."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadValue(f"{say(record, key)}, not a text")
    if not is_text(value):
        raise BadValue(f"{say(record, key)}, which holds half a character (a lone surrogate)")
    return value


def take_file_name(record: dict, key: str = "file_name") -> str:
    """Return the name of a file that lies, or could lie, below some folder."""
    name = text_only(record, key)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise BadValue(f"{say(record, key)}, but must be relative to the folder and stay in it")
    sizes = [len(part.encode()) for part in path.parts]
    if "\0" in name or max(sizes) > LONGEST_NAME or sum(sizes) > LONGEST_PATH:
        raise BadValue(f"{say(record, key)}, which no file can be called")
    return name


def take_size(record: dict) -> tuple[int, int]:
    """Return `width` and `height` in pixels."""
    sides = []
    for key in ("width", "height"):
        value = record.get(key)
        if not is_number(value) or value < 1 or value != int(value):
            raise BadValue(f"{say(record, key)}, not a number of pixels")
        sides.append(int(value))
    if sides[0] * sides[1] > MOST_PIXELS:
        raise BadValue(f"{sides[0]} x {sides[1]} pixels is no size of an image")
    return sides[0], sides[1]


def take_flag(record: dict, key: str) -> bool:
    """Return a flag: 0, 1, true or false; False where there is none."""
    value = record.get(key)
    if value is not None and (not isinstance(value, int | float) or value not in (0, 1)):
        raise BadValue(f"{say(record, key)}, neither 0 nor 1")
    return bool(value)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number that fits a float; true and false are none."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


T = TypeVar("T")


@dataclass
class Source:
    """An annotation file: its name in messages, what it holds, and what was wrong with it.

    Attributes
    ----------
    name
        Of the file, relative to the data set where it lies in it.
    data
        What it holds.
    faults
        Pairs of path and reason, as `Collection.skipped` lists them; shared by all files.
    images
        The ids by which its annotations may name an image.
    """

    name: str
    data: dict
    faults: list[tuple[str, str]]
    images: set[str] = field(default_factory=set)

    def records(self, key: str) -> Iterator[tuple[str, dict]]:
        """Yield the records of a list, each with what to call it in a message."""
        records = self.data.get(key)
        if not isinstance(records, list):
            self.faults.append((self.name, f"no list of objects {key!r}: {say(self.data, key)}"))
            records = []
        for number, record in enumerate(records):
            if isinstance(record, dict):
                yield f"{key}[{number}]", record
            else:
                self.fault(f"{key}[{number}]", f"it is {show(record)}, no object")

    def fault(self, what: str, reason: object, path: str | None = None) -> None:
        """List what was left out, by the path of its image or else of the file."""
        self.faults.append((path or self.name, f"{what} of {self.name}: {reason}"))

    def take(self, read: Callable[[dict], T], record: dict, what: str, path: str | None = None):
        """Return what a record need not have; a bad value is listed and counts as missing."""
        try:
            return read(record)
        except BadValue as e:
            self.fault(what, f"kept, but {e}", path)
        return None


def make_extra_columns(
    table: str, extras: list[dict], ids: Iterable[str], source: Source
) -> dict[str, list]:
    """Make columns of the other keys of records; texts that cannot be written are listed.

    Parameters
    ----------
    table
        "images" or "objects".
    extras
        The other keys and values of each record.
    ids
        Of the records.
    source
        Whose faults take those found.
    """
    columns = {}
    for key in dict.fromkeys(key for extra in extras for key in extra):
        if not is_text(key):
            source.fault(table, f"the key {show(key)} holds half a character (a lone surrogate)")
            continue
        values = [extra.get(key) for extra in extras]
        for row, (id_, value) in enumerate(zip(ids, values, strict=True)):
            if isinstance(value, str) and not is_text(value):
                reason = f"kept without its {key}, {show(value)}, a text with half a character"
                source.fault(f"{table} {show(id_)}", reason)
                values[row] = None
        columns[f"coco_{key}" if key in COLUMNS[table] else key] = values
    return columns


T_ANNOTATIONS = TypeVar("T")


def read_annotations(file: Path, kind: type[list] | type[dict], source: str) -> list | dict:
    """Read a JSON file that holds a list, or an object, with something in it.

    Raises
    ------
    FileNotFoundError
        If it is not there; says what is, and that the data can be had from `source`.
    ValueError
        If it is not JSON, or holds something else or nothing.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; {list_content(file.parent)}. {source}")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as e:  # not JSON, or not UTF-8
        raise ValueError(f"{file} is not JSON: {e}") from e
    if not isinstance(content, kind) or not content:
        what = "a list" if kind is list else "an object"
        raise ValueError(f"{file} must hold {what} with something in it, got {str(content)[:80]}")
    return content


def take(row: dict, key: str, kinds: type | tuple[type, ...]):
    """Return an annotation's value, or raise `ValueError` if it is missing or of another type."""
    if not isinstance(row, dict) or key not in row:
        raise ValueError(f"no {key!r} in {show(row)}")
    if not isinstance(row[key], kinds) or isinstance(row[key], bool):
        wanted = " or ".join(kind.__name__ for kind in np.atleast_1d(kinds))
        raise ValueError(f"{key!r} must be {wanted}, got {show(row[key])}")
    if isinstance(row[key], str) and not is_text(row[key]):
        raise ValueError(f"{key!r} holds half a character (a lone surrogate): {show(row[key])}")
    return row[key]


def take_texts(row: dict, key: str) -> tuple[str, ...]:
    """Return an annotation's list of texts, or raise as `take` does."""
    texts = take(row, key, list)
    if strange := [text for text in texts if not isinstance(text, str) or not is_text(text)]:
        raise ValueError(f"{key!r} must hold texts, got {show(strange[0])}")
    return tuple(texts)


def read_entries(
    entries: list, read: Callable[[dict], tuple[T_ANNOTATIONS, list]]
) -> tuple[list[T_ANNOTATIONS], list[tuple[str, str]]]:
    """Read the entries of a file one by one; those that are broken are left out.

    Parameters
    ----------
    read
        Makes a query of an entry, and its faults; raises as `take` does.

    Returns
    -------
    queries, faults
        Of broken entries the fault names the place: "entry 0".
    """
    queries, faults = [], []
    for number, entry in enumerate(entries):
        try:
            query, found = read(entry)
        except ValueError as e:
            faults.append((f"entry {number}", f"left out: {e}"))
        else:
            queries.append(query)
            faults += found
    return queries, faults


def explain_nothing_left(faults: list[tuple[str, str]]) -> str:
    """Say that no query can be used, and why the first cannot."""
    (where, reason), *_ = faults
    return f"no query can be used; {where} is {reason}"


def hides_targets(entries: list, key: str) -> bool:
    """Tell whether a split hides its targets: most entries have none."""
    return 2 * sum(isinstance(entry, dict) and key in entry for entry in entries) < len(entries)


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
    sources = {file: Source(_name_file(file, root), _read_json(file), faults) for file in files}
    records = _read_image_records(sources)
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


def _read_image_records(sources: dict[Path, Source]) -> dict[str, ImageRecord]:
    records: dict[str, ImageRecord] = {}
    for source in sources.values():
        read_images(source, records)
    if not records:
        faults = [*sources.values()][0].faults  # those of all files
        first = f"{len(faults):,} left out, the first: {': '.join(faults[0])}" if faults else ""
        reason = first or "it names no image"
        raise ValueError(f"{' or '.join(map(str, sources))}: no image is left: {reason}")
    return records


def _name_file(file: Path, root: Path) -> str:
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
