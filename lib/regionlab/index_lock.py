"""One builder at a time: the lock of an index, and words for what the disk refuses."""

import errno
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from regionlab.index_files import IndexFolderError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}


class IndexBusyError(IndexFolderError):
    """An index that another process is writing; says which, where and since when."""


@contextmanager
def claim_index(folder: Path, *, wait: float = 0) -> Iterator[None]:
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
