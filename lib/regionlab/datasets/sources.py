"""An annotation file and the list of what was wrong with its records."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from regionlab.collection import COLUMNS
from regionlab.datasets.values import BadValue, is_text, say, show

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
