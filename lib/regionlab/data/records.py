"""What the readers of triplets share: JSON files whose entries are checked as they are read."""

import json
import math
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from regionlab.data.collection import COLUMNS
from regionlab.data.listing import list_content

MOST_PIXELS = 2**30  # of an image; more than any reader takes, and less than COCO's code counts
LONGEST_NAME, LONGEST_PATH = 255, 3000  # bytes that file systems hold

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60


class BadValue(ValueError):  # noqa: N818  (a fault of the data, listed and not raised to users)
    """Why a record cannot be used."""


def show(value: object) -> str:
    """Return a value in short, whatever it holds; JSON's null is None."""
    return _SHOWN.repr(value)


def say(record: dict, key: str) -> str:
    """Return a key and its value in short, or that there is none."""
    return f"{key} is {show(record[key])}" if key in record else f"{key} is missing"


def take_id(record: dict, key: str = "id") -> str:
    """Return an id as text: whole numbers, 7.0 too, and texts that are not empty."""
    value = record.get(key)
    if type(value) is int:
        return str(value)
    if type(value) is float and value.is_integer():
        return str(int(value))
    if type(value) is str and value and is_text(value):
        return value
    raise BadValue(f"{say(record, key)}, which is no id")


def text_only(record: dict, key: str) -> str:
    """Return a text with more than blanks in it."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadValue(f"{say(record, key)}, not a text")
    if not is_text(value):
        raise BadValue(f"{say(record, key)}, which holds half a character (a lone surrogate)")
    return value


def take_file_name(record: dict, key: str = "file_name") -> str:
    """Return the name of a file that lies, or could lie, below some folder."""
    name = text_only(record, key)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise BadValue(f"{say(record, key)}, but must be relative to the folder and stay in it")
    sizes = [len(part.encode()) for part in path.parts]
    if "\0" in name or max(sizes) > LONGEST_NAME or sum(sizes) > LONGEST_PATH:
        raise BadValue(f"{say(record, key)}, which no file can be called")
    return name


def take_size(record: dict) -> tuple[int, int]:
    """Return `width` and `height` in pixels."""
    sides = []
    for key in ("width", "height"):
        value = record.get(key)
        if not is_number(value) or value < 1 or value != int(value):
            raise BadValue(f"{say(record, key)}, not a number of pixels")
        sides.append(int(value))
    if sides[0] * sides[1] > MOST_PIXELS:
        raise BadValue(f"{sides[0]} x {sides[1]} pixels is no size of an image")
    return sides[0], sides[1]


def take_flag(record: dict, key: str) -> bool:
    """Return a flag: 0, 1, true or false; False where there is none."""
    value = record.get(key)
    if value is not None and (not isinstance(value, int | float) or value not in (0, 1)):
        raise BadValue(f"{say(record, key)}, neither 0 nor 1")
    return bool(value)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number that fits a float; true and false are none."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def is_text(value: str) -> bool:
    """Tell whether a text can be written: JSON may hold halves of characters."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


T = TypeVar("T")


@dataclass
class Source:
    """An annotation file: its name in messages, what it holds, and what was wrong with it.

    Attributes
    ----------
    name
        Of the file, relative to the data set where it lies in it.
    data
        What it holds.
    faults
        Pairs of path and reason, as `Collection.skipped` lists them; shared by all files.
    images
        The ids by which its annotations may name an image.
    """

    name: str
    data: dict
    faults: list[tuple[str, str]]
    images: set[str] = field(default_factory=set)

    def records(self, key: str) -> Iterator[tuple[str, dict]]:
        """Yield the records of a list, each with what to call it in a message."""
        records = self.data.get(key)
        if not isinstance(records, list):
            self.faults.append((self.name, f"no list of objects {key!r}: {say(self.data, key)}"))
            records = []
        for number, record in enumerate(records):
            if isinstance(record, dict):
                yield f"{key}[{number}]", record
            else:
                self.fault(f"{key}[{number}]", f"it is {show(record)}, no object")

    def fault(self, what: str, reason: object, path: str | None = None) -> None:
        """List what was left out, by the path of its image or else of the file."""
        self.faults.append((path or self.name, f"{what} of {self.name}: {reason}"))

    def take(self, read: Callable[[dict], T], record: dict, what: str, path: str | None = None):
        """Return what a record need not have; a bad value is listed and counts as missing."""
        try:
            return read(record)
        except BadValue as e:
            self.fault(what, f"kept, but {e}", path)
        return None


def make_extra_columns(
    table: str, extras: list[dict], ids: Iterable[str], source: Source
) -> dict[str, list]:
    """Make columns of the other keys of records; texts that cannot be written are listed.

    Parameters
    ----------
    table
        "images" or "objects".
    extras
        The other keys and values of each record.
    ids
        Of the records.
    source
        Whose faults take those found.
    """
    columns = {}
    for key in dict.fromkeys(key for extra in extras for key in extra):
        if not is_text(key):
            source.fault(table, f"the key {show(key)} holds half a character (a lone surrogate)")
            continue
        values = [extra.get(key) for extra in extras]
        for row, (id_, value) in enumerate(zip(ids, values, strict=True)):
            if isinstance(value, str) and not is_text(value):
                reason = f"kept without its {key}, {show(value)}, a text with half a character"
                source.fault(f"{table} {show(id_)}", reason)
                values[row] = None
        columns[f"coco_{key}" if key in COLUMNS[table] else key] = values
    return columns


T_ANNOTATIONS = TypeVar("T")


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
    entries: list, read: Callable[[dict], tuple[T_ANNOTATIONS, list]]
) -> tuple[list[T_ANNOTATIONS], list[tuple[str, str]]]:
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
