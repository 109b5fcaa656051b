"""Readers of data sets: one small module a layout, each returning a `Collection`."""

from collections.abc import Callable
from pathlib import Path

from regionlab.collection import Collection
from regionlab.datasets.coco import load_coco
from regionlab.datasets.folders import load_class_folders, load_folder


def _load_toybox(root: Path | str | None, **options) -> Collection:
    from regionlab.toybox import load_toybox  # late: Toybox is built on this package

    return load_toybox(**options) if root is None else load_toybox(root, **options)


LOADERS: dict[str, Callable[..., Collection]] = {
    "coco": load_coco,
    "folder": load_folder,
    "classes": load_class_folders,
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

    Raises
    ------
    ValueError
        If `kind` is unknown, or needs a `root`.
    """
    if kind not in LOADERS:
        raise ValueError(f"unknown kind of data set {kind!r}; known: {', '.join(LOADERS)}")
    if not root and kind != "toybox":
        raise ValueError(f"a data set of kind {kind!r} needs root, the folder that it lies in")
    return LOADERS[kind](root or None, **options)
