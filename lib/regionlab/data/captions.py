"""Images with captions: Flickr30K's and Fashion200K's layouts, and text files of captions."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd

from regionlab.data.collection import Collection, make_skipped, make_table
from regionlab.data.listing import (
    is_text,
    list_content,
    list_files,
    readable_images,
    say_missing,
    show,
    unread_images,
)
from regionlab.util.errors import InputError, MissingFileError

FLICKR_SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = (
    "Images", "images", "flickr30k_images/flickr30k_images", "flickr30k_images",
    "flickr30k-images", "Flicker8k_Dataset", "Flickr8k_Dataset",
)  # fmt: skip
CAPTION_FILES = (
    "captions.txt", "results.csv", "results_20130124.token", "captions.csv", "Flickr8k.token.txt",
    "Flickr8k_text/Flickr8k.token.txt",
)  # fmt: skip
KARPATHY_JSON = "dataset_flickr30k.json"
FLICKR_SOURCE = (
    "Flickr30K's images and captions can be had from the University of Illinois (the page of "
    "the Denotation Graph), the splits from Andrej Karpathy's page at Stanford (Deep "
    "Visual-Semantic Alignments)."
)

FASHION_SPLITS = ("train", "test")
FASHION_ENDING = "_detect_all.txt"
FASHION_SOURCE = (
    "Fashion200K's labels and women.tar.gz can be had from the page of its author, Xintong Han "
    "(xthan/fashion-200k)."
)

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

Captions = dict[str, list[str]]  # file name -> its captions, in the order of the file
Left = list[tuple[str, str]]  # what was left out: path, reason
Lines = list[tuple[int, str]]  # numbers from 1, and lines


def load_flickr30k(root: Path | str, split: str | None = None) -> Collection:
    """Load Flickr30K, or Flickr8k in the same layout.

    The collection holds the images that the caption file names, on disk or not. An image's id is
    its file name without suffix (with it, where two would be the same), a caption's that and its
    number, `1000092795#0`. Listed in `skipped` are empty captions, lines that are broken or name
    no image and, without a split, images without captions and what else was left out.

    Text files of captions are in UTF-8: CSV with a header, separated by comma, bar, tab or
    semicolon; Flickr's token files, `name.jpg#0<tab>caption`, in which quotes are the captions'
    own; and the same tables without a header, if their first line begins with an image's name.

    Parameters
    ----------
    root
        The folder that holds the images in `Images/`, `images/`, `flickr30k_images/` (nested
        or not), `flickr30k-images/` or `Flicker8k_Dataset/`, and, beside them or among them,
        the captions.
    split
        "train", "val" or "test" of Karpathy's split, from `dataset_flickr30k.json` or
        `flickr30k_<split>_karpathy.txt`; None for all images, from the first that is there of
        `CAPTION_FILES` and `dataset_flickr30k.json`.

    Raises
    ------
    MissingFileError, InputError
        If the images' folder or the captions are not there; if the split is unknown or empty, or
        the file is not UTF-8, has an unknown header or no sound line.
    """
    split = _check_split(split, FLICKR_SPLITS)
    root = Path(root).expanduser().absolute()
    folder = _find_images(root)
    file = _find_captions(root, folder, split)
    read = _read_karpathy if file.suffix == ".json" else _read_text
    captions, left = read(file, folder, split)
    if not captions:
        what = f"{file} names no image" + (f" of split {split!r}" if split else "")
        first = f"; left out: {len(left):,}, the first: {' '.join(left[0])}" if left else ""
        raise InputError(what + first)
    place = folder.relative_to(root).as_posix()
    if not split:  # of one split, the images without captions are those of the others
        found = list_files(folder, readable_images(), unread_images())
        reasons = dict.fromkeys(found.paths, f"no caption in {file.name}") | found.skipped
        left += [(f"{place}/{path}", why) for path, why in reasons.items() if path not in captions]
    stems = Counter(Path(name).stem for name in captions)
    ids = {name: stem if stems[stem := Path(name).stem] == 1 else name for name in captions}
    texts = [
        (f"{ids[name]}#{number}", ids[name], text)
        for name in ids
        for number, text in enumerate(captions[name])
    ]
    columns = {"image_id": ids.values(), "path": [f"{place}/{name}" for name in ids]}
    return _make_collection(file, root, columns, texts, left, split)


def _find_images(root: Path) -> Path:
    for name in IMAGE_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise say_missing("folder of images", root, IMAGE_FOLDERS, FLICKR_SOURCE)


def _find_captions(root: Path, folder: Path, split: str | None) -> Path:
    of_split = (KARPATHY_JSON, f"flickr30k_{split}_karpathy.txt")
    names = of_split if split else (*CAPTION_FILES, KARPATHY_JSON)
    for name in names:
        for place in (root, folder, folder.parent):
            if (place / name).is_file():
                return place / name
    what = f"file of Karpathy's split for {split!r}" if split else "captions"
    raise say_missing(what, root, names, FLICKR_SOURCE)


def _read_text(file: Path, folder: Path, split: str | None) -> tuple[Captions, Left]:
    captions: Captions = {}
    strange: dict[str, list[int]] = {}  # names of no image -> their lines
    rows, broken = _read_captions(file)
    for number, name, caption in rows:
        if _names_image(name, folder):
            captions.setdefault(name, []).append(caption)
        else:
            strange.setdefault(name, []).append(number)
    left = [(f"{file.name}, line {number}", reason) for number, reason in broken]
    for name, lines in strange.items():
        texts = "1 caption" if len(lines) == 1 else f"{len(lines)} captions"
        left.append((f"{file.name}, line {lines[0]}", f"{name!r} is no picture: {texts} left out"))
    return captions, left


def _names_image(name: str, folder: Path) -> bool:
    """Tell whether a name stays in the folder, and is there or could be that of an image."""
    parts = name.split("/")
    if "" in parts or ".." in parts or "\0" in name or not is_text(name):
        return False
    return _has_image_suffix(name) or os.path.isfile(folder / name)


def _has_image_suffix(name: str) -> bool:
    """Tell whether a name has the suffix of an image, be it of a kind that is read or not."""
    suffix = Path(name).suffix.lower()
    return suffix in readable_images() or suffix in unread_images()


def _read_karpathy(file: Path, folder: Path, split: str | None) -> tuple[Captions, Left]:
    captions, left = {}, []
    try:
        entries = list(enumerate(json.loads(file.read_bytes())["images"], start=1))
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise InputError(f"{file} is not in the format of Karpathy's splits: {e!r}") from e
    for number, image in entries:
        where = f"{file.name}, image {number}"
        try:
            name, part = image["filename"], image["split"] if split else None
            texts, bad = _split_sentences(list(image["sentences"]))
            if not _names_image(name, folder):
                left.append((where, f"{name!r} is no picture"))
            elif name in captions:
                left.append((where, f"{name} comes a second time"))
            elif part == split:
                captions[name] = texts
                left += [(where, f"{name}: {show(one)} has no caption in 'raw'") for one in bad]
        except (AttributeError, KeyError, TypeError) as e:
            left.append((where, f"not in the format of Karpathy's splits: {e!r}"))
    return captions, left


def _split_sentences(sentences: list) -> tuple[list[str], list]:
    """Return the captions of sentences, and the sentences that have none; some must have one."""
    captions, bad = [], []
    for sentence in sentences:
        raw = sentence.get("raw") if isinstance(sentence, dict) else None
        if isinstance(raw, str) and is_text(raw):
            captions.append(raw.strip())
        else:
            bad.append(sentence)
    if bad and not captions:
        raise AttributeError(f"{show(bad[0])} has no caption in 'raw'")
    return captions, bad


def load_fashion200k(root: Path | str, split: str | None = None) -> Collection:
    """Load Fashion200K (Han et al., ICCV 2017): images of one garment each, with descriptions.

    The collection holds the images that the label files name, on disk or not; the authors left
    about 100,000 others out, for their low detection scores. An image's id is its published path,
    and so is the id of its caption, the product's description. Further columns of `images`:
    `label` str, the category (dress, jacket, pants, skirt or top); `product` str, the folder of
    the product's images; `detection_score` float, higher is surer; `split` str.

    Empty descriptions, images listed a second time, lines that are broken and label files that
    name no image are listed in `skipped`.

    Parameters
    ----------
    root
        The folder that holds `labels/` and `women/`.
    split
        "train" or "test"; None for both.

    Raises
    ------
    MissingFileError, InputError
        If there is no folder of images, or no label file of the split; if the split is unknown,
        or the label files are not UTF-8 or have no sound line at all.
    """
    split = _check_split(split, FASHION_SPLITS)
    root = Path(root).expanduser().absolute()
    files = _find_labels(root, split)
    if not (root / "women").is_dir():
        raise MissingFileError(
            f"no folder women/ in {root}; {list_content(root)}. {FASHION_SOURCE}"
        )
    rows: dict[str, dict] = {}  # by path
    left, twice = [], []
    for file in files:
        sound, broken = _read_labels(file)
        left += broken
        if not sound:
            left.append((f"labels/{file.name}", "label file that names no image"))
        for row in sound:
            if row["path"] in rows:
                twice.append((row["path"], f"listed a second time, in {file.name}"))
            rows.setdefault(row["path"], row)
    if not rows:
        names = ", ".join(file.name for file in files)
        raise InputError(
            f"no label file in {root / 'labels'} names an image: {names}; {' '.join(left[0])}"
        )
    table = pd.DataFrame(rows.values())
    columns = {"image_id": table["path"], "path": table["path"], "label": table["label"]}
    columns["product"] = [Path(path).parent.name for path in rows]
    columns |= {name: table[name] for name in ("detection_score", "split")}
    texts = [(path, path, row["caption"]) for path, row in rows.items()]
    return _make_collection(root / "labels", root, columns, texts, left + twice, split)


def _find_labels(root: Path, split: str | None) -> list[Path]:
    pattern = f"*_{split}{FASHION_ENDING}" if split else f"*{FASHION_ENDING}"
    files = sorted((root / "labels").glob(pattern))
    if not files:
        folder = root / "labels" if (root / "labels").is_dir() else root
        raise say_missing("label files", folder, [f"labels/{pattern}"], FASHION_SOURCE)
    return files


def _read_labels(file: Path) -> tuple[list[dict], Left]:
    """Read one label file, named `<category>_<split>_detect_all.txt`: its rows, what is broken."""
    category, _, split = file.name.removesuffix(FASHION_ENDING).rpartition("_")
    rows, broken = [], []
    for number, line in _read_lines(file):
        where = f"labels/{file.name}, line {number}"
        try:
            path, score, caption = line.split("\t")
            row = {"path": path, "detection_score": float(score), "caption": caption.strip()}
        except ValueError:
            reason = "is not a path, a score and a description with tabs between them"
            broken.append((where, f"{reason}: {line[:200]!r}"))
            continue
        if {"", ".."} & set(path.split("/")):
            broken.append((where, f"{path!r} leaves the folder"))
        else:
            rows.append(row | {"label": category, "split": split})
    return rows, broken


def _check_split(split: str | None, known: tuple[str, ...]) -> str | None:
    """Return the split, None for "" too, which is how a notebook's parameter asks for all."""
    if split and split not in known:
        raise InputError(f"unknown split {split!r}; known: {', '.join(known)}, or None for all")
    return split or None


def _read_lines(file: Path) -> Lines:
    """Return the lines of a text file that are not blank."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(f"{file} is not UTF-8 text: {e}") from e
    lines = enumerate(text.split("\n"), start=1)  # splitlines() also splits within captions
    return [(number, line) for number, line in lines if line.strip()]


def _make_collection(
    file: Path,
    root: Path,
    columns: dict[str, Iterable],
    texts: list[tuple[str, str, str]],
    left: Left,
    split: str | None,
) -> Collection:
    """Make the collection of a file's images, no image opened, and (id, image id, caption)s.

    Empty captions are left out; an image whose captions are all empty stays, without captions.
    """
    paths = dict(zip(columns["image_id"], columns["path"], strict=True))
    unknown = [-1] * len(paths)
    sound = [text for text in texts if text[2].strip()]
    left += [
        (paths[id_], f"caption {text} is empty") for text, id_, words in texts if not words.strip()
    ]
    names = ("caption_id", "image_id", "caption")
    captions = dict(zip(names, zip(*sound, strict=True), strict=True)) if sound else None
    try:
        return Collection(
            root,
            make_table("images", {**columns, "width": unknown, "height": unknown}),
            captions=make_table("captions", captions),
            name=root.name,
            split=split,
            skipped=make_skipped(left),
        )
    except ValueError as e:
        raise InputError(f"{file}: {e}") from e


@dataclass(frozen=True)
class _Table:
    """How the lines of a table are split, and which fields are what."""

    separator: str
    width: int
    image: int
    caption: int
    number: int | None = None

    def read(self, lines: Lines) -> Iterator[tuple[int, str, list[str]]]:
        """Yield number, line and fields of each record; a quoted field may run over lines."""
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

    def _read_record(self, lines: Lines) -> tuple[list[str], int]:
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

    def _begins(self, line: str) -> bool:  # does it name an image where a record would?
        fields = line.split(self.separator)
        return len(fields) > self.image and _has_image_suffix(fields[self.image].strip(' "'))


def _read_captions(file: Path) -> tuple[list[tuple[int, str, str]], list[tuple[int, str]]]:
    """Return number of the line, name and caption of each row, and number and fault of others."""
    lines = _read_lines(file)
    if not lines:
        return [], []
    number, first = lines[0]
    if file.suffix == ".token" or TOKEN.fullmatch(first):
        matches = ((n, line, TOKEN.fullmatch(line)) for n, line in lines)
        records = ((n, line, [*match.groups()] if match else []) for n, line, match in matches)
        parse = _Table("", 2, 0, 1).parse
    elif table := _read_header(first):
        records, parse = table.read(lines[1:]), table.parse
    elif table := _guess_table(first):
        records, parse = table.read(lines), table.parse
    else:
        raise InputError(
            f"{file}, line {number}: the header {first[:200]!r} is not understood; known: {KNOWN}"
        )
    rows, broken = [], []
    for number, line, fields in records:
        if row := parse(fields):
            rows.append((number, *row))
        else:
            broken.append((number, f"is no image and caption: {line[:200]!r}"))
    return rows, broken


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
    """Return the layout of a table without header, by a first line that begins with an image."""
    for separator in ("|", ",", "\t"):
        fields = _Table(separator, 2, 0, 1).split(line) or line.split(separator)
        if len(fields) > 1 and _has_image_suffix(fields[0].strip()):
            numbered = re.fullmatch(r"\s*\d+\s*", fields[1]) if len(fields) > 2 else None
            if separator == "|" or numbered:
                return _Table(separator, 3, 0, 2, 1)
            return _Table(separator, 2, 0, 1)
    return None
