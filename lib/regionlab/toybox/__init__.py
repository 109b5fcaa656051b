"""Toybox: a small honest world of pictures, and the models our own code trains on it."""

from dataclasses import replace
from pathlib import Path

from regionlab.collection import Collection
from regionlab.datasets.coco import load_coco
from regionlab.datasets.folders import load_class_folders
from regionlab.toybox.disk import ROOT, SIZES, write_class_folders, write_split


def load_toybox(
    root: Path | str = ROOT, *, split: str = "test", count: int | None = None, seed: int = 0
) -> Collection:
    """Load a split of Toybox, writing it to disk first where it is not there yet.

    What is read back is COCO layout, by the loader that reads COCO.

    Parameters
    ----------
    root
        Where the world lies or will lie.
    split
        "val", "test" or "novel" (scenes with combinations held out from training); or "classes",
        the folder-per-class view.
    count
        Scenes of the split, or pictures a class; by default 500, 1,000, 500 and 75.
    seed
        Which world.

    Raises
    ------
    ValueError
        If the split is unknown or `count` is not positive.
    """
    root = Path(root)
    default_size = (root, seed, count) == (ROOT, 0, None)
    # Another seed or size is another world: it must not overwrite the usual one.
    folder = root if default_size or root != ROOT else root / f"seed{seed}-{count or 'full'}"
    if split == "classes":
        options = {} if count is None else {"per_class": count}
        collection = load_class_folders(
            write_class_folders(folder / "classes", seed=seed, **options)
        )
        return replace(collection, name="toybox", split="classes")
    write_split(folder, split, count or SIZES.get(split, 1), seed=seed)
    return replace(load_coco(folder, split), name="toybox")
