"""Tables made so that they can be saved, before the work whose results they are to hold."""

import io
import json
from dataclasses import replace
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from regionlab.collection import COLUMNS, Collection, make_table

OURS = ("image_id", "path", "reason")


def make_storable(collection: Collection) -> Collection:
    """Return a collection whose tables can be saved as Parquet and CSV, and read back the same.

    A column of `images` that holds texts, whole numbers of 64 bits, other numbers, truths or
    times, some of them missing, stays as it is. Any other one becomes JSON text, value by value:
    of several kinds, larger numbers, lists, mappings, bytes. Images whose name is no Unicode
    text or holds NUL are skipped, with their id.

    Raises
    ------
    ValueError
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
        raise ValueError(f"the table of {collection!r} cannot be saved: {e}") from e
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
    skipped = pd.concat([flawed[list(OURS)], skipped[list(OURS)]], ignore_index=True)
    skipped = skipped.map(_make_text).astype("str")
    if bad.all():
        raise ValueError(
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
