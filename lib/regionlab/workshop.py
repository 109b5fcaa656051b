"""Workshop: the hidden folder beside an index where the next one is made, and the move into place.

`.<name>.building` is that of the images, `.<name>.regions` that of the regions. An index that
is complete waits there as `ready`, and takes the place of the old one in one move.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regionlab.collection import Collection
from regionlab.embedding import Encoder
from regionlab.index_files import FILES, SCHEMA, IndexFolderError

IMAGES, REGIONS = "building", "regions"


def get_workshop(folder: Path, task: str) -> Path:
    """Return where the workshop of an index is; `task` is `IMAGES` or `REGIONS`."""
    return folder.with_name(f".{folder.name}.{task}")


def open_workshop(folder: Path, task: str, plan: str, *, fresh: bool = False) -> Path:
    """Return the workshop with its folder of shards, emptied if they belong to another plan."""
    work = get_workshop(folder, task)
    marker = work / "plan"
    if fresh or not marker.exists() or marker.read_text() != plan:
        shutil.rmtree(work, ignore_errors=True)
        (work / "shards").mkdir(parents=True)
        marker.write_text(plan)
    return work


def plan_build(collection: Collection, encoder: Encoder) -> str:
    """Hash what decides the index: model, tables, and each file's name, size and time."""
    names = [SCHEMA, encoder.space, encoder.fingerprint, collection.name, collection.split]
    digest = hashlib.sha256(json.dumps(names).encode())
    for table in (collection.images, collection.skipped):
        digest.update(table.to_json(orient="split", index=False).encode())
    for path in collection.images["path"]:
        digest.update(f"\n{stamp_file(collection.root / path)}".encode())
    return digest.hexdigest()


def stamp_file(path: Path) -> str:
    """Return a file's size and time of change, or a word if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a new folder to be filled, which takes the place of `target` once all is on the disk.

    Cut off anywhere, even by a power failure, `target` is whole or not there.
    """
    partial, stale = target.with_suffix(".partial"), target.with_suffix(".stale")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    yield partial
    for path in (*partial.iterdir(), partial):
        sync(path)
    if target.exists():  # moved first: deleted in place, it would be there and not whole
        shutil.rmtree(stale, ignore_errors=True)
        target.rename(stale)
    partial.rename(target)
    shutil.rmtree(stale, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk itself, and not only in the system's memory."""
    if os.name == "nt":  # syncs only what is open for writing
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def has_leftovers(folder: Path, task: str) -> bool:
    """Tell whether a task was cut off, or any task in its move into place."""
    return get_workshop(folder, task).exists() or is_ready(folder)


def is_ready(folder: Path) -> bool:
    """Tell whether an index waits to be put in its place."""
    return any((get_workshop(folder, task) / "ready").exists() for task in (IMAGES, REGIONS))


def finish_swap(folder: Path) -> None:
    """Put an index that is ready in its place; cut off anywhere, it can be called again."""
    for work in (get_workshop(folder, IMAGES), get_workshop(folder, REGIONS)):
        ready, old = work / "ready", work / "old"
        if ready.exists():
            if folder.exists():
                check_replaceable(folder)
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            ready.rename(folder)
            shutil.rmtree(work, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raise `IndexFolderError` if a folder holds anything that is no part of an index."""
    foreign = [e.name for e in folder.iterdir() if e.name not in FILES] if folder.is_dir() else []
    if foreign or (folder.exists() and not folder.is_dir()):
        what = f"holds {foreign[0]!r}" if foreign else "is a file"
        raise IndexFolderError(f"{folder} {what}, no part of an index: it will not be replaced")
