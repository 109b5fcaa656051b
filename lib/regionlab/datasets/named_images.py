"""The images that annotation files name, and by which ids their annotations may name them."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from regionlab.collection import make_table
from regionlab.datasets.sources import Source, make_extra_columns
from regionlab.datasets.upright import Drawn, Size
from regionlab.datasets.values import BadValue, show, take_file_name, take_id, take_size

# The keys that end up in the columns every collection has; all others are extras.
IMAGE_KEYS = {"id", "file_name", "width", "height"}


@dataclass
class ImageRecord:
    """An image that the files name: its name, size as they have it (or None), other keys."""

    name: str
    size: Size | None
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


def _take_any_size(record: dict) -> Size | None:
    return take_size(record) if "width" in record or "height" in record else None
