"""Stamps: which files have not changed since an index was made, told by size and times alone.

`stamps.json` in the folder of an index is only a cache, and no part of what the index is: without
it, or where it does not know a file, the file is read and its contents are compared.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from os.path import relpath
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regionlab.data.collection import Collection
from regionlab.util.files import hash_file
from regionlab.util.progress import progress

STAMPS = "stamps.json"
# Size in bytes, times of change of contents and of status in nanoseconds; None: no file. Tools that
# edit a picture in place set the first time back, which they cannot do to the second.
Stamp = list[int] | None


class Look(NamedTuple):
    """The files of a collection as they are now.

    Attributes
    ----------
    stamps
        Of each file, in the order of the images.
    digests
        (n,) object: the SHA-256 of each, empty where it cannot be read, None where not known.
    """

    stamps: list[Stamp]
    digests: np.ndarray

    def is_known(self) -> bool:
        """Tell whether no file needs to be read."""
        return not any(digest is None for digest in self.digests)


def look_at_files(collection: Collection, *folders: Path) -> Look:
    """Take the stamps of a collection's files; what an index in `folders` has seen so is known."""
    root = collection.root.resolve()
    seen = {}
    for folder in reversed(folders):
        seen |= _read(folder, root)
    stamps = [take_stamp(path) for path in _list_files(collection)]
    digests = np.empty(len(stamps), object)
    for row, (path, stamp) in enumerate(zip(collection.images["path"], stamps, strict=True)):
        known = seen.get(path)
        digests[row] = known[1] if known is not None and known[0] == stamp else None
    return Look(stamps, digests)


def hash_unknown(collection: Collection, look: Look, workers: int) -> Look:
    """Return a look whose digests are all known, by reading the files that need it."""
    rows = [row for row, digest in enumerate(look.digests) if digest is None]
    files = _list_files(collection)
    digests = look.digests.copy()
    if rows:
        with ThreadPoolExecutor(workers) as pool:
            found = pool.map(_hash_or_nothing, [files[row] for row in rows])
            digests[rows] = list(progress(found, desc="hash files", total=len(rows)))
    return Look(look.stamps, digests)


def write_stamps(
    target: Path,
    folder: Path,
    collection: Collection,
    stamps: list[Stamp],
    digests: Iterable[str],
) -> None:
    """Write down which contents (SHA-256, empty if unreadable) the files had at these stamps.

    The files are known by their own path, and by that from the index in `folder`: they may move
    together with it.
    """
    root = collection.root.resolve()
    seen = zip(stamps, digests, strict=True)
    files = dict(zip(collection.images["path"], map(list, seen), strict=True))
    text = json.dumps({"root": str(root), "from_here": relpath(root, folder), "files": files})
    target.write_text(text, encoding="utf-8")


def refresh_stamps(folder: Path, collection: Collection, look: Look) -> None:
    """Write the stamps of an index that is in its place, if that can be done."""
    with suppress(OSError):  # it is only a cache: an index may be read-only
        temporary = folder.with_name(f".{folder.name}.{STAMPS}")
        write_stamps(temporary, folder, collection, look.stamps, look.digests)
        temporary.replace(folder / STAMPS)


def take_stamp(path: Path) -> Stamp:
    """Return a file's size and times of change, None where there is no file."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _list_files(collection: Collection) -> list[Path]:
    return [collection.root / path for path in collection.images["path"]]


def _read(folder: Path, root: Path) -> dict[str, list]:
    """Return stamp and digest by path; nothing if there is no such file, or of other pictures."""
    try:
        held = json.loads((folder / STAMPS).read_text(encoding="utf-8"))
        same = held["root"] == str(root) or held["from_here"] == relpath(root, folder)
        files = held["files"] if same else {}
        return {path: [stamp, str(digest)] for path, (stamp, digest) in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _hash_or_nothing(path: Path) -> str:
    try:
        return hash_file(path)
    except (OSError, ValueError):  # whoever reads it next says why
        return ""
