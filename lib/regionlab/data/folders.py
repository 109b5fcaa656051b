"""Plain folders of pictures, with or without one sub-folder a class."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from regionlab.data.collection import Collection, make_table
from regionlab.data.images import find_images
from regionlab.data.listing import is_hidden, is_text, readable_images, suffix_of

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


def load_folder(root: Path | str) -> Collection:
    """Load every picture under a folder, nested ones included.

    No picture is opened: sizes stay -1 until an index is built. An image's id comes from
    its path, so it stays the same when other pictures come or go. What looks like a picture or
    a film and is left out is listed in `skipped`, see `listing.list_files`.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, OSError, ValueError
        As `images.find_images` does.
    """
    root = Path(root).expanduser()
    paths, skipped = _relative_paths(root)
    return _make_collection(root, paths, skipped)


def load_class_folders(root: Path | str, *, classes: Iterable[str] | None = None) -> Collection:
    """Load a folder that holds one sub-folder of pictures a class.

    The sub-folder's name becomes the column `label` of `images`; rows come class by class,
    classes sorted. Files beside the class folders and classes without pictures are listed
    in the collection's `skipped`.

    Folders of splits, such as `train/<class>/` and `Test/<class>/`, are no classes (see
    `split_folders.find_split_folders`): the classes are those in them, and one more column,
    `split`, says which of "train", "val" and "test" a picture is of.

    Parameters
    ----------
    root
        The folder of class folders.
    classes
        The classes to load; None for all.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, OSError
        As `images.find_images` does.
    ValueError
        If there is no picture in any class folder, or a class asked for has no folder.
    """
    root = Path(root).expanduser()
    paths, skipped = _relative_paths(root)
    splits = {f"{path}/": split for path, split in find_split_folders(root).items()}
    bases = list(splits) or [""]
    folders = {(name, base) for base in bases for name in list_folders(root / base)}
    names = sorted({name for name, _ in folders})
    wanted = set(names if classes is None else _check_classes(root, names, classes))

    labelled = [(*_find_class(path, bases), path) for path in paths]
    rows = sorted(row for row in labelled if row[0] in wanted)
    if not rows:
        raise ValueError(f"no images in the class folders of {root}: {sorted(wanted)}")
    empty = {row for row in folders if row[0] in wanted} - {
        (label, base) for label, base, _ in rows
    }
    # Of what was left out, not what lies in classes that nobody asked for.
    skipped = {k: why for k, why in skipped.items() if _find_class(k, bases)[0] in {"", *wanted}}
    skipped = {base + name: "class folder without images" for name, base in empty} | skipped
    skipped |= dict.fromkeys(_list_strays(root, bases), "not in a class folder")
    skipped = dict(sorted(skipped.items()))
    columns = {"label": [label for label, _, _ in rows]}
    if splits:
        columns["split"] = [splits[base] for _, base, _ in rows]
    return _make_collection(root, [path for _, _, path in rows], skipped, **columns)


def _find_class(path: str, bases: list[str]) -> tuple[str, str]:
    """Return the class folder that a file lies in and what it lies in itself; "" for none."""
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


def _relative_paths(root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the pictures' paths, and path -> reason of what was left out."""
    found = find_images(root)
    bad = [path for path in found.paths if not is_text(path)]
    skipped = found.skipped | dict.fromkeys(bad, "file name is not valid UTF-8")
    return [path for path in found.paths if is_text(path)], skipped


def _check_classes(root: Path, folders: list[str], classes: Iterable[str]) -> list[str]:
    wanted = sorted(set(classes))
    unknown = [name for name in wanted if name not in folders]
    if unknown:
        raise ValueError(f"no class folder {unknown} in {root}; there are {folders}")
    return wanted


def _make_collection(
    root: Path, paths: list[str], skipped: dict[str, str], **columns: list
) -> Collection:
    ids = [hashlib.sha256(path.encode()).hexdigest()[:16] for path in paths]
    unknown = [-1] * len(paths)
    images = {"image_id": ids, "path": paths, "width": unknown, "height": unknown} | columns
    readable = [path.encode("utf-8", "backslashreplace").decode() for path in skipped]
    return Collection(
        root,
        make_table("images", images),
        name=root.absolute().name,
        skipped=make_table("skipped", {"path": readable, "reason": skipped.values()}),
    )
