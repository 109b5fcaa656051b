"""What the readers of triplets share: JSON files whose entries are checked as they are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from regionlab.datasets.labelled import list_content
from regionlab.datasets.values import is_text, show

T = TypeVar("T")


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
    except (ValueError, RecursionError) as e:  # not JSON, or not UTF-8
        raise ValueError(f"{file} is not JSON: {e}") from e
    if not isinstance(content, kind) or not content:
        what = "a list" if kind is list else "an object"
        raise ValueError(f"{file} must hold {what} with something in it, got {str(content)[:80]}")
    return content


def take(row: dict, key: str, kinds: type | tuple[type, ...]):
    """Return an annotation's value, or raise `ValueError` if it is missing or of another type."""
    if not isinstance(row, dict) or key not in row:
        raise ValueError(f"no {key!r} in {show(row)}")
    if not isinstance(row[key], kinds) or isinstance(row[key], bool):
        wanted = " or ".join(kind.__name__ for kind in np.atleast_1d(kinds))
        raise ValueError(f"{key!r} must be {wanted}, got {show(row[key])}")
    if isinstance(row[key], str) and not is_text(row[key]):
        raise ValueError(f"{key!r} holds half a character (a lone surrogate): {show(row[key])}")
    return row[key]


def take_texts(row: dict, key: str) -> tuple[str, ...]:
    """Return an annotation's list of texts, or raise as `take` does."""
    texts = take(row, key, list)
    if strange := [text for text in texts if not isinstance(text, str) or not is_text(text)]:
        raise ValueError(f"{key!r} must hold texts, got {show(strange[0])}")
    return tuple(texts)


def read_entries(
    entries: list, read: Callable[[dict], tuple[T, list]]
) -> tuple[list[T], list[tuple[str, str]]]:
    """Read the entries of a file one by one; those that are broken are left out.

    Parameters
    ----------
    read
        Makes a query of an entry, and its faults; raises as `take` does.

    Returns
    -------
    queries, faults
        Of broken entries the fault names the place: "entry 0".
    """
    queries, faults = [], []
    for number, entry in enumerate(entries):
        try:
            query, found = read(entry)
        except ValueError as e:
            faults.append((f"entry {number}", f"left out: {e}"))
        else:
            queries.append(query)
            faults += found
    return queries, faults


def explain_nothing_left(faults: list[tuple[str, str]]) -> str:
    """Say that no query can be used, and why the first cannot."""
    (where, reason), *_ = faults
    return f"no query can be used; {where} is {reason}"


def hides_targets(entries: list, key: str) -> bool:
    """Tell whether a split hides its targets: most entries have none."""
    return 2 * sum(isinstance(entry, dict) and key in entry for entry in entries) < len(entries)
