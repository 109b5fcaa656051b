"""Text files of captions: tables with a header that names the columns, or lines of two known forms.

Only what is understood is read. A header that names no known columns is refused; a line that does
not fit is left out, and told.
"""

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from regionlab.datasets.captioned import read_lines
from regionlab.suffixes import readable_images, unread_images

# Names of columns, the surest first; in any case, with blanks or dashes for underscores.
IMAGE_COLUMNS = ("file_name", "filename", "image_file", "image_name", "image", "img", "image_id")
NUMBER_COLUMNS = ("comment_number", "caption_number")
CAPTION_COLUMNS = ("caption", "comment", "description", "sentence", "text")
SEPARATORS = (",", "|", "\t", ";")
KNOWN = (
    "image,caption; image_name,comment_number,comment; image_name| comment_number| comment; "
    "without a header, lines of name.jpg#0<tab>caption, name.jpg| 0| caption or name.jpg,caption"
)
LONGEST = 100  # lines that one quoted caption may run over
TOKEN = re.compile(r"([^\t]*)#\d+\t(.*)")
QUOTED = re.compile(r'"(?:[^"]|"")*"')
NO_LAST_BAR = re.compile(r"\s*(\d+)\s+(\S.*)")  # so ends one published line
CUT_SHORT = "unexpected end of data"  # what csv says of a quote that is not closed

Record = tuple[int, str, list[str]]  # number of a line, the line, its fields


@dataclass
class CaptionRows:
    """What a text file of captions says.

    Attributes
    ----------
    rows
        Number of the line, from 1, name of a picture and its caption, in the order of the file.
    broken
        Number of the line and why it was left out.
    """

    rows: list[tuple[int, str, str]]
    broken: list[tuple[int, str]]


def read_captions(file: Path) -> CaptionRows:
    """Read a text file of captions, in UTF-8.

    Known are CSV with a header, separated by comma, bar, tab or semicolon; Flickr's token files,
    `name.jpg#0<tab>caption`, in which quotes are the captions' own; and the same tables without
    a header, if their first line begins with the name of a picture.

    Raises
    ------
    ValueError
        If the file is not UTF-8, or its first line is of none of these kinds.
    """
    lines = read_lines(file)
    if not lines:
        return CaptionRows([], [])
    number, first = lines[0]
    if file.suffix == ".token" or TOKEN.fullmatch(first):
        return _collect(((n, line, [line]) for n, line in lines), _parse_token)
    if table := _read_header(first):
        return _collect(table.read(lines[1:]), table.parse)
    if table := _guess_table(first):
        return _collect(table.read(lines), table.parse)
    raise ValueError(
        f"{file}, line {number}: the header {first[:200]!r} is not understood; known: {KNOWN}"
    )


def is_picture_name(name: str) -> bool:
    """Tell whether a name has the suffix of a picture, be it of a kind that is read or not."""
    suffix = Path(name).suffix.lower()
    return suffix in readable_images() or suffix in unread_images()


@dataclass(frozen=True)
class _Table:
    """How the lines of a table are split, and which fields are what."""

    separator: str
    width: int
    image: int
    caption: int
    number: int | None = None

    def read(self, lines: list[tuple[int, str]]) -> Iterator[Record]:
        """Yield the records of a table; a quoted field may run over lines."""
        at = 0
        while at < len(lines):
            fields, used = self._read_record(lines[at : at + LONGEST])
            yield *lines[at], fields
            at += used

    def parse(self, fields: list[str]) -> tuple[str, str] | None:
        """Return name and caption; None if the fields are not those of the table."""
        if self.separator == "|" and len(fields) == 2 < self.width:
            found = NO_LAST_BAR.fullmatch(fields[1])
            fields = [fields[0], *found.groups()] if found else fields
        if len(fields) > self.width and self.caption == self.width - 1:  # separators in a caption
            caption = self.separator.join(fields[self.caption :])
            fields = [*fields[: self.caption], caption]
        if len(fields) != self.width:
            return None
        if self.number is not None and not fields[self.number].strip().isdigit():
            return None
        caption = fields[self.caption]
        if self.separator != "|" and caption[:1] == " " and QUOTED.fullmatch(caption.strip()):
            caption = caption.strip()[1:-1].replace('""', '"')  # quotes after a blank
        return fields[self.image].strip(), caption.strip()

    def split(self, text: str) -> list[str] | None:
        """Split a record by the rules of CSV; None if a quote in it is never closed.

        Quotes that do not go around a whole field are the captions' own.
        """
        reader = csv.reader(StringIO(text, newline=""), delimiter=self.separator, strict=True)
        try:
            return next(reader)
        except csv.Error as e:
            return None if CUT_SHORT in str(e) else text.split(self.separator)

    def _read_record(self, lines: list[tuple[int, str]]) -> tuple[list[str], int]:
        """Return the fields of the record that begins a list of lines, and how many it takes."""
        text = ""
        for used, (_, line) in enumerate(lines, start=1):
            if used > 1 and self._begins(line):
                break
            text = f"{text}\n{line}" if used > 1 else line
            fields = self.split(text)
            if fields is not None:
                if used == 1 or len(fields) == self.width:
                    return fields, used
                break
        return lines[0][1].split(self.separator), 1

    def _begins(self, line: str) -> bool:
        """Tell whether a line names a picture where a record would."""
        fields = line.split(self.separator)
        return len(fields) > self.image and is_picture_name(fields[self.image].strip(' "'))


def _collect(records: Iterator[Record], parse: Callable) -> CaptionRows:
    found = CaptionRows([], [])
    for number, line, fields in records:
        row = parse(fields)
        if row is None:
            found.broken.append((number, f"is no image and caption: {line[:200]!r}"))
        else:
            found.rows.append((number, *row))
    return found


def _parse_token(fields: list[str]) -> tuple[str, str] | None:
    found = TOKEN.fullmatch(fields[0])
    return (found[1].strip(), found[2].strip()) if found else None


def _read_header(line: str) -> _Table | None:
    for separator in SEPARATORS:
        names = [
            re.sub(r"[\s-]+", "_", name.strip(" \"'").lower()) for name in line.split(separator)
        ]
        image, number, caption = (
            next((names.index(name) for name in known if name in names), None)
            for known in (IMAGE_COLUMNS, NUMBER_COLUMNS, CAPTION_COLUMNS)
        )
        if image is not None and caption is not None:
            return _Table(separator, len(names), image, caption, number)
    return None


def _guess_table(line: str) -> _Table | None:
    """Return the layout of a table without header, by a first line that begins with a picture."""
    for separator in ("|", ",", "\t"):
        fields = _Table(separator, 2, 0, 1).split(line) or line.split(separator)
        if len(fields) > 1 and is_picture_name(fields[0].strip()):
            numbered = re.fullmatch(r"\s*\d+\s*", fields[1]) if len(fields) > 2 else None
            if separator == "|" or numbered:
                return _Table(separator, 3, 0, 2, 1)
            return _Table(separator, 2, 0, 1)
    return None
