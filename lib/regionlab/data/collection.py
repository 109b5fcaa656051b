"""Images, their objects and their captions as three tables over a folder."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_integer_dtype, is_string_dtype

from regionlab.data.decoding import is_sideways, turn_mask
from regionlab.data.images import read_image
from regionlab.data.masks import rle_to_mask, segmentation_to_rle

# What every table must hold; loaders add columns of their own.
COLUMNS = {
    "images": {"image_id": "str", "path": "str", "width": "int64", "height": "int64"},
    "objects": {
        "object_id": "str",
        "image_id": "str",
        "category": "str",
        "x0": "float64",
        "y0": "float64",
        "x1": "float64",
        "y1": "float64",
        "area": "float64",
        "iscrowd": "bool",
        "segmentation": "object",
    },
    "captions": {"caption_id": "str", "image_id": "str", "caption": "str"},
    "skipped": {"path": "str", "reason": "str"},
}

DTYPE_CHECKS: dict[str, Callable[[pd.Series], bool]] = {
    "str": is_string_dtype,
    "int64": is_integer_dtype,
    "float64": is_float_dtype,
    "bool": is_bool_dtype,
    "object": lambda column: True,
}


def make_table(name: str, columns: dict[str, Iterable] | None = None) -> pd.DataFrame:
    """Make one of a collection's tables with the dtypes of `COLUMNS`.

    Parameters
    ----------
    name
        "images", "objects", "captions" or "skipped".
    columns
        Values by column, the required ones and any others; None for an empty table.
    """
    dtypes = COLUMNS[name]
    columns = columns or {column: [] for column in dtypes}
    return pd.DataFrame(
        {key: pd.Series(list(values), dtype=dtypes.get(key)) for key, values in columns.items()}
    )


@dataclass(frozen=True, eq=False, repr=False)
class Collection:
    """Pictures in a folder with what is known about them.

    Checked when made; afterwards treat the tables as read-only.

    Parameters
    ----------
    root
        The folder that all paths are relative to; made absolute.
    images
        One row an image. `image_id` str, unique; `path` str, relative to `root`, forward
        slashes; `width`, `height` int pixels, -1 where not known before reading. Optional
        columns, such as `label`.
    objects
        One row an object. `object_id` str, unique; `image_id`; `category` str;
        `x0`, `y0`, `x1`, `y1` float pixels, right and bottom exclusive; `area` float square
        pixels of the mask (NaN if not given); `iscrowd` bool; `segmentation` as the data set
        gives it: polygons, RLE (see `rle.segmentation_to_rle`) or None. Optional attributes.
    captions
        One row a caption. `caption_id` str, unique; `image_id`; `caption` str.
    name, split
        What the data set calls itself and this part of it.
    skipped
        What the loader left out, and what it kept without a part: `path`, `reason`.
    turned
        Image id to EXIF orientation, of images whose segmentations were drawn on the pixels as
        stored: `mask` turns them upright, as `read` does the picture. Boxes, width and height
        are of the upright picture.
    shown_as
        What people are to read for `name`, where that has more in it to be unique; see `title`.

    Raises
    ------
    ValueError
        If a column is missing or of another type, an id is not unique, a path leaves `root`,
        a box is upside down, or an object or caption belongs to no image.
    """

    root: Path
    images: pd.DataFrame
    objects: pd.DataFrame = field(default_factory=lambda: make_table("objects"))
    captions: pd.DataFrame = field(default_factory=lambda: make_table("captions"))
    name: str = "collection"
    split: str | None = None
    skipped: pd.DataFrame = field(default_factory=lambda: make_table("skipped"))
    turned: Mapping[str, int] = field(default_factory=dict)
    shown_as: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser().absolute())
        for table in COLUMNS:
            _check_columns(table, getattr(self, table))
        _check_ids(self.images["image_id"])
        _check_ids(self.objects["object_id"])
        _check_ids(self.captions["caption_id"])
        _check_paths(self.images)
        _check_boxes(self.objects)
        _check_references("objects", self.objects, self.images)
        _check_references("captions", self.captions, self.images)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def title(self) -> str:
        """What people are to read: the name without what only makes it unique."""
        return self.shown_as or self.name

    def __repr__(self) -> str:
        title = f"{self.title} {self.split}" if self.split else self.title
        counts = ", ".join(f"{n:,} {what}" for what, n in self.summary().items() if n)
        return f"<Collection {title}: {counts or 'empty'}>"

    def summary(self) -> dict[str, int]:
        """Count images, objects, categories, captions, labels and skipped files."""
        named = self.images["label"].dropna() if "label" in self.images else []
        return {
            "images": len(self.images),
            "objects": len(self.objects),
            "crowds": int(self.objects["iscrowd"].sum()),
            "categories": self.objects["category"].nunique(),
            "images with objects": self.objects["image_id"].nunique(),
            "captions": len(self.captions),
            "images with captions": self.captions["image_id"].nunique(),
            "labels": len(set(map(str, named))),
            "skipped": len(self.skipped),
        }

    def image_path(self, image_id: str) -> Path:
        """Return the absolute path of an image; KeyError for an unknown id."""
        return self.root / self._image(image_id)["path"]

    def read(self, image_id: str) -> np.ndarray:
        """Read an image as (H, W, 3) uint8 RGB; raises as `images.read_image` does."""
        return read_image(self.image_path(image_id))

    def objects_of(self, image_id: str) -> pd.DataFrame:
        """Return the rows of `objects` that lie in an image; KeyError for an unknown id."""
        return self._rows_of(image_id, self.objects, self._objects_by_image)

    def captions_of(self, image_id: str) -> pd.DataFrame:
        """Return the rows of `captions` that describe an image; KeyError for an unknown id."""
        return self._rows_of(image_id, self.captions, self._captions_by_image)

    def subset(self, image_ids: Iterable[str]) -> "Collection":
        """Keep the images named, in the order named, with their objects and captions.

        Raises
        ------
        KeyError
            If an id is unknown.
        ValueError
            If an id comes twice.
        """
        rows = [self._row(image_id) for image_id in image_ids]
        images = self.images.iloc[rows].reset_index(drop=True)
        return replace(
            self,
            images=images,
            objects=_keep_rows_of(images, self.objects),
            captions=_keep_rows_of(images, self.captions),
        )

    def mask(self, object_id: str) -> np.ndarray:
        """Return the mask of an object, (H, W) bool in the size of its image.

        Raises
        ------
        KeyError
            If the id is unknown.
        ValueError
            If the object has no segmentation, or one that cannot be decoded.
        """
        if object_id not in self._object_rows:
            raise KeyError(f"no object {object_id!r} in {self.name}")
        row = self.objects.iloc[self._object_rows[object_id]]
        image = self._image(row["image_id"])
        orientation = self.turned.get(row["image_id"], 1)
        size = [image["height"], image["width"]][:: -1 if is_sideways(orientation) else 1]
        try:
            mask = rle_to_mask(segmentation_to_rle(row["segmentation"], *size))
            return turn_mask(mask, orientation)
        except ValueError as e:
            raise ValueError(f"object {object_id!r}: {e}") from e

    def missing_files(self) -> pd.DataFrame:
        """Return the rows of `images` whose file is not on disk."""
        found = [os.path.isfile(self.root / path) for path in self.images["path"]]
        return self.images[~np.array(found, dtype=bool)]

    def _image(self, image_id: str) -> pd.Series:
        return self.images.iloc[self._row(image_id)]

    def _row(self, image_id: str) -> int:
        if image_id not in self._image_rows:
            raise KeyError(f"no image {image_id!r} in {self.name}")
        return self._image_rows[image_id]

    def _rows_of(self, image_id: str, table: pd.DataFrame, by_image: dict) -> pd.DataFrame:
        self._row(image_id)
        return table.iloc[by_image.get(image_id, [])]

    @cached_property
    def _image_rows(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.images["image_id"])}

    @cached_property
    def _object_rows(self) -> dict[str, int]:
        return {object_id: row for row, object_id in enumerate(self.objects["object_id"])}

    @cached_property
    def _objects_by_image(self) -> dict[str, np.ndarray]:
        return self.objects.groupby("image_id").indices

    @cached_property
    def _captions_by_image(self) -> dict[str, np.ndarray]:
        return self.captions.groupby("image_id").indices


def _check_columns(name: str, table: pd.DataFrame) -> None:
    for column, dtype in COLUMNS[name].items():
        if column not in table:
            raise ValueError(f"{name} has no column {column!r}, only {list(table.columns)}")
        if not DTYPE_CHECKS[dtype](table[column]):
            raise ValueError(f"{name}.{column} must be {dtype}, not {table[column].dtype}")
        if dtype == "str" and table[column].isna().any():
            raise ValueError(f"{name}.{column} has missing values")


def _check_ids(ids: pd.Series) -> None:
    twice = ids[ids.duplicated()]
    if len(twice):
        raise ValueError(f"{ids.name} must be unique; {_first(twice)} come more than once")


def _check_paths(images: pd.DataFrame) -> None:
    paths = images["path"]
    outside = paths[(paths == "") | paths.str.contains(r"^/|(?:^|/)\.\.(?:/|$)")]
    if len(outside):
        raise ValueError(f"paths must be relative to root and stay in it, not {_first(outside)}")


def _check_boxes(objects: pd.DataFrame) -> None:
    boxes = objects[["x0", "y0", "x1", "y1"]].to_numpy(dtype=float)
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    if not good.all():
        raise ValueError(
            f"boxes must be finite with x0 <= x1, y0 <= y1: see object_id "
            f"{_first(objects['object_id'][~good])}"
        )


def _check_references(name: str, table: pd.DataFrame, images: pd.DataFrame) -> None:
    lost = table["image_id"][~table["image_id"].isin(images["image_id"])]
    if len(lost):
        raise ValueError(
            f"{name} refer to unknown images: image_id {_first(lost.drop_duplicates())}"
        )


def _keep_rows_of(images: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    return table[table["image_id"].isin(images["image_id"])].reset_index(drop=True)


def _first(values: pd.Series, n: int = 5) -> str:
    shown = ", ".join(repr(value) for value in values.iloc[:n])
    return f"{shown} and {len(values) - n:,} more" if len(values) > n else shown
