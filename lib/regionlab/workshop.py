"""Workshop: the hidden folder beside an index where the next one is made, and the move into place.

`.<name>.building` is that of the images, `.<name>.regions` that of the regions. An index that
is complete waits there as `ready`, and takes the place of the old one in one move.
"""

import shutil
from pathlib import Path

from regionlab.index_files import FILES, IndexFolderError

IMAGES, REGIONS = "building", "regions"


def get_workshop(folder: Path, task: str) -> Path:
    """Return where the workshop of an index is; `task` is `IMAGES` or `REGIONS`."""
    return folder.with_name(f".{folder.name}.{task}")


def open_workshop(folder: Path, task: str, plan: str, *, fresh: bool) -> Path:
    """Return the workshop with its folder of shards, emptied if they belong to another plan."""
    work = get_workshop(folder, task)
    marker = work / "plan"
    if fresh or not marker.exists() or marker.read_text() != plan:
        shutil.rmtree(work, ignore_errors=True)
        (work / "shards").mkdir(parents=True)
        marker.write_text(plan)
    return work


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
