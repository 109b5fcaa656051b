"""Plain folders of pictures, with or without one sub-folder a class."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from regionlab.collection import Collection, make_table
from regionlab.images import is_hidden, list_images


def load_folder(root: Path | str) -> Collection:
    """Load every picture under a folder, nested ones included.

    No picture is opened: sizes stay -1 until an index is built. An image's id comes from
    its path, so it stays the same when other pictures come or go.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, ValueError
        As `images.list_images` does.
    """
    root = Path(root).expanduser()
    paths, skipped = _relative_paths(root)
    return _make_collection(root, paths, skipped)


def load_class_folders(root: Path | str, *, classes: Iterable[str] | None = None) -> Collection:
    """Load a folder that holds one sub-folder of pictures a class.

    The sub-folder's name becomes the column `label` of `images`; rows come class by class,
    classes sorted. Files beside the class folders and classes without pictures are listed
    in the collection's `skipped`.

    Parameters
    ----------
    root
        The folder of class folders.
    classes
        The classes to load; None for all.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        As `images.list_images` does.
    ValueError
        If there is no picture in any class folder, or a class asked for has no folder.
    """
    root = Path(root).expanduser()
    paths, skipped = _relative_paths(root)
    visible = [entry for entry in sorted(root.iterdir()) if not is_hidden(entry.name)]
    folders = [entry.name for entry in visible if entry.is_dir()]
    wanted = set(folders if classes is None else _check_classes(root, folders, classes))

    labelled = [(path.split("/")[0], path) for path in paths if "/" in path]
    rows = sorted(row for row in labelled if row[0] in wanted)
    empty = sorted(wanted - {label for label, _ in rows})
    if not rows:
        raise ValueError(f"no images in the class folders of {root}: {sorted(wanted)}")
    skipped |= {e.name: "not in a class folder" for e in visible if not e.is_dir()}
    skipped |= {name: "class folder without images" for name in empty}
    return _make_collection(
        root, [path for _, path in rows], skipped, label=[label for label, _ in rows]
    )


def _relative_paths(root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the pictures' paths, and path -> reason for names no table can hold."""
    paths = [path.relative_to(root).as_posix() for path in list_images(root)]
    bad = [path for path in paths if not _is_text(path)]
    return [p for p in paths if _is_text(p)], dict.fromkeys(bad, "file name is not valid UTF-8")


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


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
