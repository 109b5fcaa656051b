"""Folders of splits, such as `train/` and `Validation/`, told from folders of classes."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from regionlab.listing import is_hidden
from regionlab.suffixes import readable_images, suffix_of

# As they are called, besides in any case: test_set, valid, Training-images, seg_train, val2017.
NAME = re.compile(
    r"(?:\w+[ _-])?"
    r"(?:(?P<train>train)(?:ing)?|(?P<val>val|valid|validation|dev|eval)|(?P<test>test)(?:ing)?)"
    r"(?:[ _-]?(?:set|data|images))?(?:[ _-]?\d+)?",
    re.IGNORECASE,
)


def find_split_folders(root: Path) -> dict[str, str]:
    """Return the folders of splits in a folder: path relative to it -> "train", "val" or "test".

    A folder counts by its name, if it holds folders; where it holds only one of the same name, as
    archives do when unpacked, that one counts. A folder that is alone is looked into. A single
    split beside other folders that hold pictures is one class among others, such as trains among
    cars.

    Raises
    ------
    ValueError
        If all folders have names of splits, and hold no folders of classes.
    """
    folders = list(list_folders(root))
    names = {name: split for name in folders if (split := _split_of(name))}
    if len(folders) == 1 and not names:
        (name,) = folders
        return {f"{name}/{path}": split for path, split in find_split_folders(root / name).items()}
    found = {
        _enter(root, name): split
        for name, split in names.items()
        if next(list_folders(root / name), None)
    }
    others = [name for name in folders if name not in names]
    if names and not found and not others:
        raise ValueError(
            f"{root} holds folders of splits ({', '.join(names)}), but no folder of a class in "
            "them; kind 'folder' loads pictures without labels"
        )
    alone = len(set(found.values())) == 1
    return {} if alone and any(_holds_pictures(root / name) for name in others) else found


def list_folders(folder: Path) -> Iterator[str]:
    """Yield the names of the folders in a folder, sorted; none of one that cannot be listed."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # listed as left out where the pictures are looked for
        return
    yield from (name for name in names if not is_hidden(name) and os.path.isdir(folder / name))


def _split_of(name: str) -> str | None:
    found = NAME.fullmatch(name)
    return found.lastgroup if found else None


def _enter(root: Path, name: str) -> str:
    inner = list(list_folders(root / name))
    return f"{name}/{inner[0]}" if [n.lower() for n in inner] == [name.lower()] else name


def _holds_pictures(folder: Path) -> bool:
    try:
        return any(suffix_of(name) in readable_images() for name in os.listdir(folder))
    except OSError:
        return False
