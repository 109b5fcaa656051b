"""Values in JSON as they have to be, or a `BadValue` that names the key and what it holds."""

import math
import reprlib
from pathlib import PurePosixPath

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


def take_words(record: dict, key: str) -> str:
    """Return a text with more than blanks in it."""
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadValue(f"{say(record, key)}, not a text")
    if not is_text(value):
        raise BadValue(f"{say(record, key)}, which holds half a character (a lone surrogate)")
    return value


def take_file_name(record: dict, key: str = "file_name") -> str:
    """Return the name of a file that lies, or could lie, below some folder."""
    name = take_words(record, key)
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
