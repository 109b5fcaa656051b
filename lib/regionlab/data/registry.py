"""Readers of data sets: one small module a layout, each returning a `Collection`.

Data sets of one label an image, such as MNIST, come as `LabelledImages`, by `load_labelled`;
those of composed retrieval, such as CIRR, as `Triplets`, by `load_triplets`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from regionlab.data.captions import load_fashion200k, load_flickr30k
from regionlab.data.coco import load_coco
from regionlab.data.collection import Collection, load_class_folders, load_folder
from regionlab.data.labelled import (
    LabelledImages,
    load_cifar10,
    load_digits,
    load_labelled_folders,
    load_mnist,
)
from regionlab.data.triplets import Triplets, list_categories, load_cirr, load_fashioniq
from regionlab.data.video import load_video
from regionlab.util import paths


def _load_toybox(root: Path | str | None, **options) -> Collection:
    from toybox import load_toybox  # late: Toybox is built on this package

    return load_toybox(**options) if root is None else load_toybox(root, **options)


LOADERS: dict[str, Callable[..., Collection]] = {
    "coco": load_coco,
    "folder": load_folder,
    "classes": load_class_folders,
    "flickr30k": load_flickr30k,
    "fashion200k": load_fashion200k,
    "video": load_video,
    "toybox": _load_toybox,
}


def load_collection(kind: str, root: Path | str | None = None, **options) -> Collection:
    """Load the data set under `root`, laid out as `kind` says.

    Parameters
    ----------
    kind
        A name in `LOADERS`.
    root
        The folder of the data set. Toybox alone needs none: it is made where it is missing.
    options
        Passed on to the loader.

    Returns
    -------
    Collection
        Its `name` has a short hash of its folder in it, but for Toybox in its own place: so two
        folders of one name have an index each. `title` is the name without.

    Raises
    ------
    ValueError
        If `kind` is unknown, or needs a `root`.
    """
    if kind not in LOADERS:
        raise ValueError(f"unknown kind of data set {kind!r}; known: {', '.join(LOADERS)}")
    if not root and kind != "toybox":
        raise ValueError(f"a data set of kind {kind!r} needs root, the folder that it lies in")
    collection = LOADERS[kind](root or None, **options)
    own = kind == "toybox" and not root and not options.get("seed") and not options.get("count")
    return collection if own else _name_by_place(collection)


def _name_by_place(collection: Collection) -> Collection:
    """Let the name tell the folder: as seen from the workspace where it lies in it."""
    root, workspace = collection.root.resolve(), paths.ROOT.resolve()
    inside = root.is_relative_to(workspace)
    place = root.relative_to(workspace).as_posix() if inside else str(root)
    digest = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return replace(collection, name=f"{collection.name}-{digest}", shown_as=collection.title)


def _label_toybox(root: Path | str | None, split: str) -> LabelledImages:
    if root:
        return load_labelled_folders(root, split)
    folder = _load_toybox(None, split="classes").root
    return replace(load_labelled_folders(folder, split), name="toybox")


LABELLED: dict[str, Callable[..., LabelledImages]] = {
    "digits": lambda root, split: load_digits(split),
    "mnist": load_mnist,
    "cifar10": load_cifar10,
    "classes": load_labelled_folders,
    "toybox": _label_toybox,
}


def load_labelled(
    kind: str, root: Path | str | None = None, *, split: str = "train"
) -> LabelledImages:
    """Load one split of a data set that has a label for each image.

    Parameters
    ----------
    kind
        A name in `LABELLED`; "classes" is any folder with a folder of pictures a class.
    root
        The folder of the data set. Digits and Toybox need none.
    split
        "train" or "test".

    Raises
    ------
    ValueError
        If `kind` or `split` is unknown, or `kind` needs a `root`. Else as the loader does.
    """
    if kind not in LABELLED:
        raise ValueError(f"unknown kind of labelled data {kind!r}; known: {', '.join(LABELLED)}")
    if not root and kind not in ("digits", "toybox"):
        raise ValueError(f"a data set of kind {kind!r} needs root, the folder that it lies in")
    return LABELLED[kind](root or None, split)


TRIPLETS = ("fashioniq", "cirr")


def load_triplets(
    kind: str, root: Path | str, *, split: str, category: str | None = None
) -> Triplets:
    """Load one split of a data set of composed retrieval.

    Parameters
    ----------
    kind
        A name in `TRIPLETS`.
    root
        The folder of the data set.
    split
        As the data set calls it: "train", "val", and "test" (FashionIQ) or "test1" (CIRR).
    category
        Of FashionIQ, such as "dress"; CIRR has none.

    Raises
    ------
    ValueError
        If `kind` is unknown, or a category is given that the data set has not, or lacks. Else
        as the loader does.
    """
    if kind not in TRIPLETS:
        raise ValueError(f"unknown kind of triplets {kind!r}; known: {', '.join(TRIPLETS)}")
    if kind == "cirr" and category:
        raise ValueError(f"CIRR has no categories, got category={category!r}")
    if kind == "cirr":
        return load_cirr(root, split=split)
    if not category:
        known = ", ".join(list_categories(root, split)) or "none"
        raise ValueError(f"FashionIQ is loaded by category; {root} has, of {split!r}: {known}")
    return load_fashioniq(root, split=split, category=category)
