"""Toybox: a small honest world of pictures, and the models our own code trains on it."""

from dataclasses import replace
from pathlib import Path

from regionlab.data.coco import load_coco
from regionlab.data.collection import Collection, load_class_folders
from regionlab.util.errors import InputError
from toybox.disk import PER_CLASS, ROOT, SIZES, write_class_folders, write_split


def load_toybox(
    root: Path | str = ROOT, *, split: str = "test", count: int | None = None, seed: int = 0
) -> Collection:
    """Load a split of Toybox, writing it to disk first where it is not there yet.

    What is read back is COCO layout, by the loader that reads COCO.

    Parameters
    ----------
    root
        Where the world lies or will lie. In the usual place another seed or count gets a
        folder of its own; in any other place it replaces what lies there.
    split
        "val", "test" or "novel" (scenes with combinations held out from training); or "classes",
        the folder-per-class view.
    count
        Scenes of the split, or pictures a class; by default 500, 1,000, 500 and 75.
    seed
        Which world.

    Raises
    ------
    InputError
        If the split is unknown or `count` is not positive.
    """
    sizes = {**SIZES, "classes": PER_CLASS}
    if split not in sizes:
        raise InputError(f"unknown Toybox split {split!r}; on disk are: {', '.join(sizes)}")
    folder, size = Path(root), sizes[split] if count is None else count
    if folder == ROOT and (seed, size) != (0, sizes[split]):
        folder = ROOT / f"seed{seed}-{size}"
    if split == "classes":
        write_class_folders(folder / "classes", per_class=size, seed=seed)
        collection = load_class_folders(folder / "classes")
    else:
        collection = load_coco(write_split(folder, split, size, seed=seed), split)
    return replace(collection, name="toybox", split=split)
