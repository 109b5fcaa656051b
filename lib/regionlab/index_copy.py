"""Copy an index between folders and object storage, such as `s3://bucket/folder`."""

import hashlib
import json
from pathlib import Path

from pyarrow import ArrowException, fs

from regionlab.index_files import FILES, IndexFolderError

MANIFEST = "manifest.json"
BLOCK = 1 << 22  # bytes in memory at once


def copy_index(source: Path | str, target: Path | str) -> str:
    """Copy an index and return where the copy is; its files are checked on their way.

    The manifest goes last, so a copy that was cut off is no index, and the same call ends it.
    The pictures stay where they are: an index finds them beside itself, or by their own path.

    Parameters
    ----------
    source, target
        A folder, or a URI that `pyarrow.fs.FileSystem.from_uri` understands: `s3://`, `gs://`,
        `abfs://`, `hdfs://`. Keys and regions come from the environment, as for other tools of
        the store.

    Raises
    ------
    IndexFolderError
        If there is no index at the source, a file is not the one that was written with it, the
        target holds something already, or one of the two cannot be reached.
    """
    try:
        return _copy(str(source), str(target))
    except IndexFolderError:
        raise
    except (OSError, ArrowException, ValueError) as e:
        raise IndexFolderError(f"cannot copy the index {source} to {target}: {e}") from e


def _copy(source: str, target: str) -> str:
    here, there = _open(source), _open(target)
    _check_free(there, target)
    if MANIFEST not in _list(here):
        raise IndexFolderError(f"no index at {source}: it holds no {MANIFEST}")
    with here.open_input_stream(MANIFEST) as file:
        digests = json.loads(file.read()).get("files", {})
    names = [name for name in FILES if name in _list(here) and name != MANIFEST]
    for name in [*names, MANIFEST]:
        digest = _copy_file(here, there, name)
        if digest != digests.get(name, digest):
            raise IndexFolderError(
                f"{name} of {source} is not the file that was written with its manifest, or was "
                f"damaged on the way; what is at {target} is no index"
            )
    return target


def _open(place: str) -> fs.FileSystem:
    uri = place if "://" in place else str(Path(place).expanduser().absolute())
    system, path = fs.FileSystem.from_uri(uri)
    return fs.SubTreeFileSystem(path, system)


def _list(folder: fs.FileSystem) -> set[str]:
    selector = fs.FileSelector("", allow_not_found=True)
    return {info.base_name for info in folder.get_file_info(selector)}


def _check_free(folder: fs.FileSystem, place: str) -> None:
    held = _list(folder)
    taken = sorted(held - set(FILES)) or sorted(held & {MANIFEST})
    if taken:
        raise IndexFolderError(f"{place} holds {taken[0]!r} already: name another place")


def _copy_file(here: fs.FileSystem, there: fs.FileSystem, name: str) -> str:
    """Copy a file and return the SHA-256 of what went through."""
    digest = hashlib.sha256()
    there.create_dir("", recursive=True)
    with here.open_input_stream(name) as source, there.open_output_stream(name) as target:
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()
