"""The collection that an index is made of: tables that can be saved, and stamps of its files.

`stamps.json` in the folder of an index is only a cache: without it, or where a file's size or
times are not those it knows, the file is read and its contents are compared.
"""

import hashlib
import io
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from numbers import Number
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from regionlab.data.collection import COLUMNS, Collection, make_table
from regionlab.index.tables import FAILURE_COLUMNS, SCHEMA, STAMPS
from regionlab.util.errors import InputError
from regionlab.util.files import hash_file
from regionlab.util.progress import progress

if TYPE_CHECKING:
    from regionlab.models.encoder import Encoder

# Size in bytes, times of change of contents and of status in nanoseconds; None: no file. Tools that
# edit an image in place set the first time back, which they cannot do to the second.
Stamp = list[int] | None


def make_storable(collection: Collection) -> Collection:
    """Return a collection whose tables can be saved as Parquet and CSV, and read back the same.

    A column of `images` that holds texts, whole numbers of 64 bits, other numbers, truths or
    times, some of them missing, stays as it is. Any other one becomes JSON text, value by value:
    of several kinds, larger numbers, lists, mappings, bytes. Images whose name is no Unicode
    text or holds NUL are skipped, with their id.

    Raises
    ------
    InputError
        If no image is left, or the table cannot be saved all the same.
    """
    collection = _set_aside(collection)
    images = collection.images
    columns = {}
    for number, name in enumerate(images.columns):
        column = images.iloc[:, number]
        text = _make_text(name if isinstance(name, str) else str(name))
        while text in columns:  # Parquet knows columns by name
            text += "_"
        kept = name in COLUMNS["images"] or _is_storable(column)
        columns[text] = column if kept else column.map(_to_json, na_action=None).astype("str")
    images = pd.DataFrame(columns, index=images.index)
    try:
        images.to_parquet(io.BytesIO())
    except Exception as e:  # pyarrow and its codecs each have errors of their own
        raise InputError(f"the table of {collection!r} cannot be saved: {e}") from e
    return replace(collection, images=images)


def _set_aside(collection: Collection) -> Collection:
    """Move the images whose name cannot be saved to what is skipped."""
    images = collection.images
    reasons = [_find_flaw(*names) for names in zip(images["image_id"], images["path"], strict=True)]
    bad = np.array([reason != "" for reason in reasons], bool)
    skipped = collection.skipped
    if "image_id" not in skipped:
        skipped = skipped.assign(image_id="")
    flawed = images[["image_id", "path"]][bad].assign(reason=[r for r in reasons if r])
    skipped = pd.concat([flawed[FAILURE_COLUMNS], skipped[FAILURE_COLUMNS]], ignore_index=True)
    skipped = skipped.map(_make_text).astype("str")
    if bad.all():
        raise InputError(
            f"not one of the {len(images)} images of {collection!r} can be read; the first: "
            f"{skipped['path'].iloc[0]}: {skipped['reason'].iloc[0]}"
        )
    images = images[~bad].reset_index(drop=True)
    images = images.assign(**{name: images[name].astype("str") for name in ("image_id", "path")})
    # The other tables are of no use to an index, and may speak of the images set aside.
    rest = {"objects": make_table("objects"), "captions": make_table("captions")}
    return replace(collection, images=images, skipped=skipped, **rest)


def _find_flaw(*names: str) -> str:
    if any("\0" in name for name in names):
        return "no file can have this name: it holds a NUL character"
    if any(_make_text(name) != name for name in names):
        return "its name is no Unicode text: rename the file"
    return ""


def _make_text(text: str) -> str:
    r"""Write what is no Unicode, as bytes of a name of another encoding, as `\udcff`."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _is_storable(column: pd.Series) -> bool:
    kinds = set(map(type, column.dropna())) if column.dtype == object else set()
    if len(kinds) > 1 and (bool in kinds or not all(issubclass(k, Number) for k in kinds)):
        return False
    try:
        kind = pa.Table.from_pandas(column.rename("column").to_frame(), preserve_index=False)
        kind = kind.schema.field("column").type
    except Exception:  # pyarrow's many, OverflowError, UnicodeError, those of other columns
        return False
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or pa.types.is_primitive(kind) or pa.types.is_null(kind)


def _to_json(value: Any) -> str | None:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    try:
        return json.dumps(value, default=_to_plain, sort_keys=_has_text_keys(value))
    except (TypeError, ValueError, RecursionError):  # such as keys that are no texts, or a circle
        return json.dumps(_make_text(_to_plain(value)))


def _has_text_keys(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _to_plain(value: Any) -> Any:
    plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)
    return str(value) if isinstance(plain, np.generic) else plain  # np.longdouble stays itself


def hash_build(collection: Collection, encoder: "Encoder") -> str:
    """Hash what decides the index but for the contents of its files: model and tables."""
    names = [SCHEMA, encoder.space, encoder.fingerprint, collection.name, collection.split]
    digest = hashlib.sha256(json.dumps(names).encode())
    for table in (collection.images, collection.skipped):
        odd = [name for name in table if _may_be_time(table[name].dtype)]
        plain = table.assign(**{name: table[name].astype(str) for name in odd})
        text = plain.to_json(orient="split", index=False, double_precision=15)
        digest.update(text.encode())
    return digest.hexdigest()


def _may_be_time(dtype: Any) -> bool:
    """Tell whether a column may hold times, which pandas' JSON knows only near the year 2000."""
    return pd.api.types.is_object_dtype(dtype) or getattr(dtype, "kind", "") in ("m", "M")


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
    """Return stamp and digest by path; nothing if there is no such file, or of other images."""
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
