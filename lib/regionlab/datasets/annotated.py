"""COCO's annotations as tables of objects and captions; a bad record is left out and listed."""

import math
from collections.abc import Mapping

import pandas as pd

from regionlab.collection import COLUMNS, make_table
from regionlab.datasets.outlines import read_segmentation
from regionlab.datasets.sources import Source, make_extra_columns
from regionlab.datasets.upright import Drawn, Size
from regionlab.datasets.values import BadValue, is_number, say, show, take_flag, take_id, take_words
from regionlab.rle_runs import find_broken_counts

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
            name = take_words(record, "name")
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


def _take_box(record: dict, size: Size | None) -> tuple[float, float, float, float]:
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


def _is_near(box: tuple[float, float, float, float], size: Size) -> bool:
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
            caption = take_words(record, "caption")
            rows.append((_take_new_id(record, seen), image_id, caption))
        except BadValue as e:
            source.fault(f"{place}, id {show(record.get('id'))}", e, paths.get(image_id))
    columns = dict(zip(COLUMNS["captions"], zip(*rows, strict=True), strict=True)) if rows else None
    return make_table("captions", columns)
