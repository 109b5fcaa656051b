"""Collections: images, their objects and captions as tables over a folder, or plain folders."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api import types

from regionlab.data.images import read_image
from regionlab.data.listing import find_images, is_hidden, is_text, readable_images, suffix_of
from regionlab.data.masks import is_sideways, rle_to_mask, segmentation_to_rle, turn_mask
from regionlab.util.errors import InputError

# What every table must hold; loaders add columns of their own.
COLUMNS = {
    "images": {"image_id": "str", "path": "str", "width": "int64", "height": "int64"},
    "objects": {
        "object_id": "str", "image_id": "str", "category": "str",
        "x0": "float64", "y0": "float64", "x1": "float64", "y1": "float64",
        "area": "float64", "iscrowd": "bool", "segmentation": "object",
    },
    "captions": {"caption_id": "str", "image_id": "str", "caption": "str"},
    "skipped": {"path": "str", "reason": "str"},
}  # fmt: skip
DTYPE_CHECKS = {
    "str": types.is_string_dtype,
    "int64": types.is_integer_dtype,
    "float64": types.is_float_dtype,
    "bool": types.is_bool_dtype,
    "object": lambda column: True,
}

# Folders of splits, in any case: test_set, valid, Training-images, seg_train, val2017.
SPLIT_NAME = re.compile(
    r"(?:\w+[ _-])?"
    r"(?:(?P<train>train)(?:ing)?|(?P<val>val|valid|validation|dev|eval)|(?P<test>test)(?:ing)?)"
    r"(?:[ _-]?(?:set|data|images))?(?:[ _-]?\d+)?",
    re.IGNORECASE,
)


def make_table(name: str, columns: Mapping[str, Iterable] | None = None) -> pd.DataFrame:
    """Make one of a collection's tables with the dtypes of `COLUMNS`, empty without columns."""
    dtypes = COLUMNS[name]
    columns = columns or dict.fromkeys(dtypes, ())
    return pd.DataFrame(
        {key: pd.Series(list(values), dtype=dtypes.get(key)) for key, values in columns.items()}
    )


def make_skipped(rows: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Make a collection's table `skipped` of pairs of path and reason, each in valid UTF-8."""
    texts = [[text.encode("utf-8", "backslashreplace").decode() for text in row] for row in rows]
    paths, reasons = zip(*texts, strict=True) if texts else ((), ())
    return make_table("skipped", {"path": paths, "reason": reasons})


def _empty(name: str) -> pd.DataFrame:
    return field(default_factory=lambda: make_table(name))


@dataclass(frozen=True, eq=False, repr=False)
class Collection:
    """Images in a folder with what is known about them.

    Checked when made (InputError); afterwards treat the tables as read-only.

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
        gives it: polygons, RLE (see `masks.segmentation_to_rle`) or None. Optional attributes.
    captions
        One row a caption. `caption_id` str, unique; `image_id`; `caption` str.
    name, split
        What the data set calls itself and this part of it.
    skipped
        What the loader left out, and what it kept without a part: `path`, `reason`.
    turned
        Image id to EXIF orientation, of images whose segmentations were drawn on the pixels as
        stored: `mask` turns them upright, as `read` does the image. Boxes, width and height
        are of the upright image.
    shown_as
        What people are to read for `name`, where that has more in it to be unique; see `title`.
    """

    root: Path
    images: pd.DataFrame
    objects: pd.DataFrame = _empty("objects")
    captions: pd.DataFrame = _empty("captions")
    name: str = "collection"
    split: str | None = None
    skipped: pd.DataFrame = _empty("skipped")
    turned: Mapping[str, int] = field(default_factory=dict)
    shown_as: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).expanduser().absolute())
        for table in COLUMNS:
            _check_columns(table, getattr(self, table))
        for ids in (self.images.image_id, self.objects.object_id, self.captions.caption_id):
            if len(twice := ids[ids.duplicated()]):
                raise InputError(f"{ids.name} must be unique; {_first(twice)} come more than once")
        paths = self.images["path"]
        if len(outside := paths[(paths == "") | paths.str.contains(r"^/|(?:^|/)\.\.(?:/|$)")]):
            raise InputError(
                f"paths must be relative to root and stay in it, not {_first(outside)}"
            )
        _check_boxes(self.objects)
        for name in ("objects", "captions"):
            ids = getattr(self, name)["image_id"]
            if len(lost := ids[~ids.isin(self.images["image_id"])].drop_duplicates()):
                raise InputError(f"{name} refer to unknown images: image_id {_first(lost)}")

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
        return self._rows_of("objects", image_id)

    def captions_of(self, image_id: str) -> pd.DataFrame:
        """Return the rows of `captions` that describe an image; KeyError for an unknown id."""
        return self._rows_of("captions", image_id)

    def subset(self, image_ids: Iterable[str]) -> "Collection":
        """Keep the images named, in the order named, with their objects and captions.

        Raises KeyError for an unknown id, and InputError for one that comes twice.
        """
        rows = [self._row(image_id) for image_id in image_ids]
        images = self.images.iloc[rows].reset_index(drop=True)
        objects, captions = (
            table[table["image_id"].isin(images["image_id"])].reset_index(drop=True)
            for table in (self.objects, self.captions)
        )
        return replace(self, images=images, objects=objects, captions=captions)

    def mask(self, object_id: str) -> np.ndarray:
        """Return the mask of an object, (H, W) bool in the size of its image.

        Raises KeyError for an unknown id, and ValueError if the object has no segmentation, or
        one that cannot be decoded.
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

    def _rows_of(self, table: str, image_id: str) -> pd.DataFrame:
        self._row(image_id)
        return getattr(self, table).iloc[self._by_image[table].get(image_id, [])]

    @cached_property
    def _image_rows(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.images["image_id"])}

    @cached_property
    def _object_rows(self) -> dict[str, int]:
        return {object_id: row for row, object_id in enumerate(self.objects["object_id"])}

    @cached_property
    def _by_image(self) -> dict[str, dict[str, np.ndarray]]:
        tables = {"objects": self.objects, "captions": self.captions}
        return {name: table.groupby("image_id").indices for name, table in tables.items()}


def _check_columns(name: str, table: pd.DataFrame) -> None:
    for column, dtype in COLUMNS[name].items():
        if column not in table:
            raise InputError(f"{name} has no column {column!r}, only {list(table.columns)}")
        if not DTYPE_CHECKS[dtype](table[column]):
            raise InputError(f"{name}.{column} must be {dtype}, not {table[column].dtype}")
        if dtype == "str" and table[column].isna().any():
            raise InputError(f"{name}.{column} has missing values")


def _check_boxes(objects: pd.DataFrame) -> None:
    boxes = objects[["x0", "y0", "x1", "y1"]].to_numpy(dtype=float)
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    if not good.all():
        raise InputError(
            f"boxes must be finite with x0 <= x1, y0 <= y1: see object_id "
            f"{_first(objects['object_id'][~good])}"
        )


def _first(values: pd.Series, n: int = 5) -> str:
    shown = ", ".join(repr(value) for value in values.iloc[:n])
    return f"{shown} and {len(values) - n:,} more" if len(values) > n else shown


def load_folder(root: Path | str) -> Collection:
    """Load every image under a folder, nested ones included.

    No image is opened: sizes stay -1 until an index is built. An image's id comes from
    its path, so it stays the same when other images come or go. What looks like an image or
    a film and is left out is listed in `skipped`, see `listing.list_files`. Raises as
    `listing.find_images` does.
    """
    root = Path(root).expanduser()
    return _make_collection(root, *_find_paths(root))


def load_class_folders(root: Path | str, *, classes: Iterable[str] | None = None) -> Collection:
    """Load a folder that holds one sub-folder of images a class.

    The sub-folder's name becomes the column `label` of `images`; rows come class by class,
    classes sorted. Files beside the class folders and classes without images are listed
    in the collection's `skipped`.

    Folders of splits, such as `train/<class>/` and `Test/<class>/`, are no classes (see
    `find_split_folders`): the classes are those in them, and one more column, `split`, says
    which of "train", "val" and "test" an image is of.

    Loads the classes named, None for all. Raises as `listing.find_images` does, and InputError if
    there is no image in any class folder, or a class named has no folder.
    """
    root = Path(root).expanduser()
    paths, skipped = _find_paths(root)
    splits = {f"{path}/": split for path, split in find_split_folders(root).items()}
    bases = list(splits) or [""]
    folders = {(name, base) for base in bases for name in _list_folders(root / base)}
    known = sorted({name for name, _ in folders})
    wanted = set(known if classes is None else classes)
    if unknown := sorted(wanted.difference(known)):
        raise InputError(f"no class folder {unknown} in {root}; there are {known}")

    rows = sorted((*_find_class(path, bases), path) for path in paths)
    rows = [row for row in rows if row[0] in wanted]
    if not rows:
        raise InputError(f"no images in the class folders of {root}: {sorted(wanted)}")
    full = {(label, base) for label, base, _ in rows}
    empty = {row for row in folders - full if row[0] in wanted}
    # Of what was left out, not what lies in classes that nobody asked for.
    skipped = {k: why for k, why in skipped.items() if _find_class(k, bases)[0] in {"", *wanted}}
    skipped = {base + name: "class folder without images" for name, base in empty} | skipped
    skipped |= dict.fromkeys(_list_strays(root, bases), "not in a class folder")
    columns = {"label": [label for label, _, _ in rows]}
    if splits:
        columns["split"] = [splits[base] for _, base, _ in rows]
    paths = [path for _, _, path in rows]
    return _make_collection(root, paths, dict(sorted(skipped.items())), **columns)


def find_split_folders(root: Path) -> dict[str, str]:
    """Return the folders of splits in a folder: path relative to it -> "train", "val" or "test".

    A folder counts by its name, if it holds folders; where it holds only one of the same name, as
    archives do when unpacked, that one counts. A folder that is alone is looked into. A single
    split beside other folders that hold images is one class among others, such as trains among
    cars. Raises InputError if all folders have names of splits, and hold no folders of classes.
    """
    folders = _list_folders(root)
    names = {name: match.lastgroup for name in folders if (match := SPLIT_NAME.fullmatch(name))}
    if len(folders) == 1 and not names:
        (name,) = folders
        return {f"{name}/{path}": split for path, split in find_split_folders(root / name).items()}
    found = {}
    for name, split in names.items():
        if inner := _list_folders(root / name):
            is_nested = [each.lower() for each in inner] == [name.lower()]
            found[f"{name}/{inner[0]}" if is_nested else name] = split
    others = [name for name in folders if name not in names]
    if names and not found and not others:
        raise InputError(
            f"{root} holds folders of splits ({', '.join(names)}), but no folder of a class in "
            "them; kind 'folder' loads pictures without labels"
        )
    alone = len(set(found.values())) == 1
    return {} if alone and any(_holds_images(root / name) for name in others) else found


def _list_folders(folder: Path) -> list[str]:
    """List the names of the folders in a folder, sorted; none of one that cannot be listed."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # listed as left out where the images are looked for
        return []
    return [name for name in names if not is_hidden(name) and os.path.isdir(folder / name)]


def _holds_images(folder: Path) -> bool:
    try:
        return any(suffix_of(name) in readable_images() for name in os.listdir(folder))
    except OSError:
        return False


def _find_class(path: str, bases: list[str]) -> tuple[str, str]:
    """Return the class folder that a file lies in, "" for none, and what that lies in."""
    for base in bases:
        label, slash, _ = path.removeprefix(base).partition("/")
        if slash and path.startswith(base):
            return label, base
    return "", ""


def _list_strays(root: Path, bases: list[str]) -> Iterator[str]:
    """Yield what lies beside class folders: files and, beside those of splits, folders."""
    for base in bases:
        for name in os.listdir(root / base):
            if not is_hidden(name) and not os.path.isdir(root / base / name):
                yield base + name
    if bases != [""]:
        known = {base.split("/")[0] for base in bases}
        yield from (n for n in os.listdir(root) if not is_hidden(n) and n not in known)


def _find_paths(root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the images' paths, and path -> reason of what was left out."""
    found = find_images(root)
    bad = [path for path in found.paths if not is_text(path)]
    skipped = found.skipped | dict.fromkeys(bad, "file name is not valid UTF-8")
    return [path for path in found.paths if is_text(path)], skipped


def make_ids(paths: Iterable[str]) -> list[str]:
    """Return an id a path: the first 16 hexadecimal digits of its SHA-256."""
    return [hashlib.sha256(path.encode()).hexdigest()[:16] for path in paths]


def _make_collection(
    root: Path, paths: list[str], skipped: dict[str, str], **columns: list
) -> Collection:
    unknown = [-1] * len(paths)
    images = {"image_id": make_ids(paths), "path": paths, "width": unknown, "height": unknown}
    return Collection(
        root,
        make_table("images", images | columns),
        name=root.absolute().name,
        skipped=make_skipped(skipped.items()),
    )
