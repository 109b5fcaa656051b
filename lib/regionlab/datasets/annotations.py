"""What the readers of triplets share: JSON files whose entries are checked as they are read."""

import json
from pathlib import Path

import numpy as np

from regionlab.datasets.labelled import list_content


def read_annotations(file: Path, kind: type[list] | type[dict], source: str) -> list | dict:
    """Read a JSON file that holds a list, or an object, with something in it.

    Raises
    ------
    FileNotFoundError
        If it is not there; says what is, and that the data can be had from `source`.
    ValueError
        If it is not JSON, or holds something else or nothing.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}; {list_content(file.parent)}. {source}")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as e:  # not JSON, or not UTF-8
        raise ValueError(f"{file} is not JSON: {e}") from e
    if not isinstance(content, kind) or not content:
        what = "a list" if kind is list else "an object"
        raise ValueError(f"{file} must hold {what} with something in it, got {str(content)[:80]}")
    return content


def take(row: dict, key: str, kinds: type | tuple[type, ...], where: str):
    """Return an annotation's value, or raise `ValueError` if it is missing or of another type."""
    if not isinstance(row, dict) or key not in row:
        raise ValueError(f"{where} has no {key!r}: {str(row)[:200]}")
    if not isinstance(row[key], kinds) or isinstance(row[key], bool):
        wanted = " or ".join(kind.__name__ for kind in np.atleast_1d(kinds))
        raise ValueError(f"{where}: {key!r} must be {wanted}, got {row[key]!r}")
    return row[key]


def take_texts(row: dict, key: str, where: str) -> tuple[str, ...]:
    """Return an annotation's list of texts, or raise as `take` does."""
    texts = take(row, key, list, where)
    if strange := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"{where}: {key!r} must hold texts, got {strange[0]!r}")
    return tuple(texts)


def take_targets(rows: list[dict], key: str, file: Path) -> list[str | None]:
    """Return each annotation's target; None for all of them where the split hides it.

    Raises
    ------
    ValueError
        If only some have one, or as `take` does.
    """
    if not any(isinstance(row, dict) and key in row for row in rows):
        return [None] * len(rows)
    return [take(row, key, str, f"{file}, entry {i}") for i, row in enumerate(rows)]
