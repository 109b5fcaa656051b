"""Plain folders of pictures, with or without one sub-folder a class."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from regionlab.collection import Collection, make_table
from regionlab.datasets.split_folders import find_split_folders, list_folders
from regionlab.images import find_images
from regionlab.listing import is_hidden, is_text


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
