"""Copy an index between folders and object storage, such as `s3://bucket/folder`."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from pyarrow import ArrowException, fs

from regionlab.index.tables import FILES, IndexFolderError

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


class Place(NamedTuple):
    """A folder of a file system."""

    system: fs.FileSystem
    path: str

    def list_names(self) -> set[str]:
        """Return the names in it; none where it is not there."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        return {info.base_name for info in self.system.get_file_info(selector)}

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return f"{self.path.rstrip('/')}/{name}"


def _copy(source: str, target: str) -> str:
    here, there = _find(source), _find(target)
    held, taken = here.list_names(), there.list_names()
    if MANIFEST not in held:
        raise IndexFolderError(f"no index at {source}: it holds no {MANIFEST}")
    if foreign := sorted(taken - set(FILES) | taken & {MANIFEST}):
        raise IndexFolderError(f"{target} holds {foreign[0]!r} already: name another place")
    with here.system.open_input_stream(here.file(MANIFEST)) as file:
        digests = json.loads(file.read()).get("files", {})
    there.system.create_dir(there.path, recursive=True)
    for name in [*(name for name in FILES if name in held and name != MANIFEST), MANIFEST]:
        digest = _copy_file(here, there, name)
        if digest != digests.get(name, digest):
            raise IndexFolderError(
                f"{name} of {source} is not the file that was written with its manifest, or was "
                f"damaged on the way; what is at {target} is no index"
            )
    return target


def _find(place: str) -> Place:
    uri = place if "://" in place else str(Path(place).expanduser().absolute())
    return Place(*fs.FileSystem.from_uri(uri))


def _copy_file(here: Place, there: Place, name: str) -> str:
    """Copy a file and return the SHA-256 of what went through."""
    digest = hashlib.sha256()
    with (
        here.system.open_input_stream(here.file(name)) as source,
        there.system.open_output_stream(there.file(name)) as target,
    ):
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
    return digest.hexdigest()
