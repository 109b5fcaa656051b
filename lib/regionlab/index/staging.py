"""Workshop: the hidden folder beside an index where the next one is made, and the move into place.

`.<name>.building` is that of the images, `.<name>.regions` that of the regions. An index that
is complete waits there as `ready`, and takes the place of the old one in one move. Where that one
has regions and the new one is still to get them, the old one stays as `.<name>.previous`.
"""

import errno
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from regionlab.index.tables import FILES, IndexFolderError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}


class IndexBusyError(IndexFolderError):
    """An index that another process is writing; says which, where and since when."""


@contextmanager
def lock_index(folder: Path, *, wait: float = 0) -> Iterator[None]:
    """Keep everybody else from writing an index meanwhile, within a `with`.

    The lock is the operating system's: it goes with the process, however that ends. What the
    disk refuses is explained.

    Parameters
    ----------
    folder
        Where the index lies or will lie, resolved.
    wait
        Seconds to wait for another process.

    Raises
    ------
    IndexBusyError
        If another process has it.
    IndexFolderError
        If the disk is full, or cannot be written to.
    """
    path = get_lock(folder)
    with explain_refusal(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _acquire(path, folder, wait):
            try:
                with suppress(OSError):  # the word is a courtesy, the lock is held without
                    path.write_text(_describe_self())
                yield
            finally:
                with suppress(OSError):  # while it is held: who has opened it meanwhile sees that
                    path.unlink()


@contextmanager
def explain_refusal(folder: Path) -> Iterator[None]:
    """Turn what the operating system refuses while an index is written into plain words."""
    try:
        yield
    except OSError as e:
        if e.errno is None:  # not by the operating system
            raise
        where = f": {e.filename}" if e.filename else ""
        hint = "make room" if e.errno in FULL else "let it be written to, or name another folder"
        raise IndexFolderError(
            f"cannot write the index {folder}: {os.strerror(e.errno)}{where}. Nothing that was "
            f"there is lost: {hint}, and the same call goes on where it stopped"
        ) from e


def find_builder(folder: Path) -> str | None:
    """Return who is writing an index, as `IndexBusyError` says it; None if nobody is."""
    path = get_lock(folder)
    if not path.exists():
        return None
    try:
        with FileLock(path, timeout=0):
            return None
    except Timeout:
        return _read_holder(path)
    except OSError:  # a folder that nobody can write to
        return None


def get_lock(folder: Path) -> Path:
    """Return the file by which an index is locked; it is there only while somebody builds."""
    return folder.with_name(f".{folder.name}.lock")


def _acquire(path: Path, folder: Path, wait: float):
    lock = FileLock(path, fallback_to_soft=False)
    try:
        return lock.acquire(timeout=wait)
    except Timeout as e:
        raise IndexBusyError(
            f"the index {folder} is being written by {_read_holder(path)}: wait until it is "
            "done, or stop it; nothing was changed"
        ) from e
    except OSError as e:
        if e.errno not in WITHOUT_LOCKS:
            raise
        warnings.warn(
            f"{folder.parent} lies on a file system without locks: see to it that nobody else "
            "writes this index",
            stacklevel=5,
        )
        return nullcontext()


def _describe_self() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"


def _read_holder(path: Path) -> str:
    try:
        return path.read_text() or "another process"
    except OSError:
        return "another process"


IMAGES, REGIONS = "building", "regions"
SHARDS, REGION_SHARDS = "shards", "region shards"  # of images, and of their regions
PREVIOUS = "previous"
MADE_BY = "made_by.json"


def get_staging(folder: Path, task: str) -> Path:
    """Return where the workshop of an index is; `task` is `IMAGES` or `REGIONS`."""
    return folder.with_name(f".{folder.name}.{task}")


def open_staging(folder: Path, task: str, plan: str, *, fresh: bool = False) -> Path:
    """Return the workshop of a plan; shards of another plan that lie there become salvage."""
    work = get_staging(folder, task)
    marker = work / "plan"
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    if not marker.exists() or marker.read_text() != plan:
        _lay_by(work)
        marker.write_text(plan)
    return work


def _lay_by(work: Path) -> None:
    """Empty a workshop, but for the shards, whose images may be known again by contents."""
    salvage = work / "salvage"
    salvage.mkdir(parents=True, exist_ok=True)
    for path in (work / SHARDS, work / REGION_SHARDS):
        if path.exists():
            path.rename(salvage / f"{len(list(salvage.iterdir())):06d}")
    for path in work.iterdir():
        if path != salvage:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def open_shards(work: Path, name: str, made_by: Any) -> tuple[Path, list[Path]]:
    """Return a workshop's folder of shards, and others that were made alike for other plans.

    Those may lie in either workshop of the index.

    Parameters
    ----------
    name
        `SHARDS` or `REGION_SHARDS`.
    made_by
        What decides what is in them, but for the images: as plain JSON values.
    """
    text = json.dumps([name, made_by], sort_keys=True)
    shards = work / name
    if not (shards / MADE_BY).exists():
        shards.mkdir(exist_ok=True)
        (shards / MADE_BY).write_text(text)
    beside = [work, *(work.with_suffix(f".{task}") for task in (IMAGES, REGIONS))]
    found = {path.parent for place in beside for path in place.glob(f"*/{MADE_BY}")}
    found |= {path.parent for place in beside for path in place.glob(f"salvage/*/{MADE_BY}")}
    others = sorted(found - {shards})
    return shards, [folder for folder in others if (folder / MADE_BY).read_text() == text]


def hand_over_regions(folder: Path) -> None:
    """Let the regions that cut off work has found so far outlive the images' workshop."""
    salvage = get_staging(folder, REGIONS) / "salvage"
    for marker in sorted(get_staging(folder, IMAGES).glob(f"salvage/*/{MADE_BY}")):
        if json.loads(marker.read_text())[0] == REGION_SHARDS:
            salvage.mkdir(parents=True, exist_ok=True)
            marker.parent.rename(salvage / f"{len(list(salvage.iterdir())):06d}")


def stamp_file(path: Path) -> str:
    """Return a word for a file's size and time of change, or for that it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return "missing"
    return f"{stat.st_size} {stat.st_mtime_ns}"


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
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
    return get_staging(folder, task).exists() or is_ready(folder)


def is_ready(folder: Path) -> bool:
    """Tell whether an index waits to be put in its place."""
    return any((get_staging(folder, task) / "ready").exists() for task in (IMAGES, REGIONS))


def finish_swap(folder: Path) -> None:
    """Put an index that is ready in its place; cut off anywhere, it can be called again."""
    for work in (get_staging(folder, IMAGES), get_staging(folder, REGIONS)):
        ready, old = work / "ready", work / "old"
        if ready.exists():
            if folder.exists():
                check_replaceable(folder)
                old = get_staging(folder, PREVIOUS) if (work / PREVIOUS).exists() else old
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            ready.rename(folder)
            shutil.rmtree(work, ignore_errors=True)


def keep_previous(work: Path) -> None:
    """Let the index that is replaced by what is made in a workshop stay beside it."""
    (work / PREVIOUS).touch()


def drop_previous(folder: Path) -> None:
    """Remove the index that stayed beside this one: this one has what it had, or better."""
    shutil.rmtree(get_staging(folder, PREVIOUS), ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raise `IndexFolderError` if a folder holds anything that is no part of an index."""
    foreign = [e.name for e in folder.iterdir() if e.name not in FILES] if folder.is_dir() else []
    if foreign or (folder.exists() and not folder.is_dir()):
        what = f"holds {foreign[0]!r}" if foreign else "is a file"
        raise IndexFolderError(f"{folder} {what}, no part of an index: it will not be replaced")
