"""Records of JSON annotation files, checked as they are read; faults are listed."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from regionlab.data.collection import COLUMNS
from regionlab.data.listing import is_text, list_content, show
from regionlab.util.errors import InputError, MissingFileError

MOST_PIXELS = 2**30  # of an image; more than any reader takes, and less than COCO's code counts
LONGEST_NAME, LONGEST_PATH = 255, 3000  # bytes that file systems hold

Size = tuple[int, int]  # width and height in pixels
T = TypeVar("T")


class BadValue(ValueError):  # noqa: N818  (a fault of the data, listed and not raised to users)
    """Why a record cannot be used."""


@dataclass
class Source:
    """An annotation file: what it holds, and what was left out of it."""

    name: str  # of the file, relative to the data set where it lies in it
    data: dict
    faults: list[tuple[str, str]]  # path and reason; shared by all files
    images: set[str] = field(default_factory=set)  # ids that its annotations may name

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

    def fault_record(self, place: str, record: dict, reason: object, path: str | None = None):
        """List a record that was left out, by its place in the file and its id."""
        self.fault(f"{place}, id {show(record.get('id'))}", reason, path)

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
    """Make columns of the other keys of records; texts that cannot be written are listed."""
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


def say(record: dict, key: str) -> str:
    """Return a key and its value in short, or that there is none."""
    return f"{key} is {show(record[key])}" if key in record else f"{key} is missing"


def say_size(size: Size) -> str:
    """Return width and height in words."""
    return "{} x {} pixels".format(*size)


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number that fits a float; true and false are none."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _take(record: dict, key: str, good: Callable[[Any], bool], why: str) -> Any:
    """Return a value that is good; else say why not, after its key and itself."""
    value = record.get(key)
    if not good(value):
        raise BadValue(f"{say(record, key)}{why}")
    return value


def take_id(record: dict, key: str = "id") -> str:
    """Return an id as text: whole numbers, 7.0 too, and texts that are not empty."""
    value = record.get(key)
    if type(value) is int or (type(value) is float and value.is_integer()):
        return str(int(value))
    return _take(
        record, key, lambda id_: type(id_) is str and id_ and is_text(id_), ", which is no id"
    )


def take_text(record: dict, key: str) -> str:
    """Return a text with more than blanks in it."""
    _take(record, key, lambda text: isinstance(text, str) and text.strip(), ", not a text")
    return _take(record, key, is_text, ", which holds half a character (a lone surrogate)")


def take_file_name(record: dict, key: str = "file_name") -> str:
    """Return the name of a file that lies, or could lie, below some folder; else BadValue."""
    name = take_text(record, key)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise BadValue(f"{say(record, key)}, but must be relative to the folder and stay in it")
    sizes = [len(part.encode()) for part in path.parts]
    if "\0" in name or max(sizes) > LONGEST_NAME or sum(sizes) > LONGEST_PATH:
        raise BadValue(f"{say(record, key)}, which no file can be called")
    return name


def take_size(record: dict) -> Size:
    """Return `width` and `height` in pixels."""
    width, height = (
        int(_take(record, key, _is_count, ", not a number of pixels"))
        for key in ("width", "height")
    )
    if width * height > MOST_PIXELS:
        raise BadValue(f"{width} x {height} pixels is no size of an image")
    return width, height


def _is_count(value: object) -> bool:
    return is_number(value) and value >= 1 and value == int(value)


def take_flag(record: dict, key: str) -> bool:
    """Return a flag: 0, 1, true or false; False where there is none."""
    return bool(_take(record, key, lambda flag: flag in (None, 0, 1), ", neither 0 nor 1"))


def read_json(file: Path) -> Any:
    """Return what a JSON file holds; a number of thousands of digits counts as infinite."""
    data = file.read_bytes()
    try:
        try:
            return json.loads(data)
        except ValueError as e:
            if "digits" not in str(e):  # Python does not read so many
                raise
            return json.loads(data, parse_int=lambda n: int(n) if len(n) < 4000 else math.inf)
    except (ValueError, RecursionError) as e:  # the message says where, or that it is no UTF-8
        raise InputError(f"{file} is not valid JSON: {e}") from e


def read_annotations(file: Path, kind: type[list] | type[dict], source: str) -> list | dict:
    """Read a JSON file that holds a list, or an object, with something in it."""
    if not file.is_file():
        raise MissingFileError(f"no file {file}; {list_content(file.parent)}. {source}")
    content = read_json(file)
    if not isinstance(content, kind) or not content:
        what = "a list" if kind is list else "an object"
        raise InputError(f"{file} must hold {what} with something in it, got {str(content)[:80]}")
    return content


def take_entry(entry: dict, key: str, kinds: type | tuple[type, ...]):
    """Return an entry's value; BadValue if it is missing or of another type."""
    if not isinstance(entry, dict) or key not in entry:
        raise BadValue(f"no {key!r} in {show(entry)}")
    value = entry[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = " or ".join(kind.__name__ for kind in np.atleast_1d(kinds))
        raise BadValue(f"{key!r} must be {wanted}, got {show(value)}")
    if isinstance(value, str) and not is_text(value):
        raise BadValue(f"{key!r} holds half a character (a lone surrogate): {show(value)}")
    return value


def take_texts(entry: dict, key: str) -> tuple[str, ...]:
    """Return an entry's list of texts, as `take_entry` does."""
    texts = take_entry(entry, key, list)
    if strange := [text for text in texts if not isinstance(text, str) or not is_text(text)]:
        raise BadValue(f"{key!r} must hold texts, got {show(strange[0])}")
    return tuple(texts)
