"""Fashion200K's layout: label files of path, detection score and description.

The pictures are cropped to one garment each; the pictures of a product share a description.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
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
    show,
    unread_images,
)


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not blank, each with its number from 1.

    Raises
    ------
    ValueError
        If the file is not UTF-8.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise ValueError(f"{file} is not UTF-8 text: {e}") from e
    lines = enumerate(text.split("\n"), start=1)  # splitlines() also splits within captions
    return [(number, line) for number, line in lines if line.strip()]


def drop_empty_captions(
    images: pd.DataFrame, captions: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the table of captions into those with text and a `skipped` table of the others.

    An image whose captions are all empty stays an image, without captions.
    """
    empty = captions["caption"].str.strip() == ""
    paths = images.set_index("image_id")["path"].to_dict()
    skipped = make_skipped(
        (paths.get(row.image_id, row.image_id), f"caption {row.caption_id} is empty")
        for row in captions[empty].itertuples()
    )
    return captions[~empty].reset_index(drop=True), skipped


def check_split(split: str | None, known: tuple[str, ...]) -> str | None:
    """Return the split, None for "" too, which is how a notebook's parameter asks for all.

    Raises
    ------
    ValueError
        If the split is not one of those known.
    """
    if split and split not in known:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(known)}, or None for all")
    return split or None


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


SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = (
    "Images",
    "images",
    "flickr30k_images/flickr30k_images",
    "flickr30k_images",
    "flickr30k-images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
)
CAPTION_FILES = (
    "captions.txt",
    "results.csv",
    "results_20130124.token",
    "captions.csv",
    "Flickr8k.token.txt",
    "Flickr8k_text/Flickr8k.token.txt",
)
KARPATHY_JSON = "dataset_flickr30k.json"
SOURCE = (
    "Flickr30K's images and captions can be had from the University of Illinois (the page of "
    "the Denotation Graph), the splits from Andrej Karpathy's page at Stanford (Deep "
    "Visual-Semantic Alignments)."
)

Captions = dict[str, list[str]]  # file name -> its captions, in the order of the file
Left = list[tuple[str, str]]  # what was left out: path, reason


def load_flickr30k(root: Path | str, split: str | None = None) -> Collection:
    """Load Flickr30K, or Flickr8k in the same layout.

    The collection holds the images that the caption file names, on disk or not (see
    `Collection.missing_files`). An image's id is its file name without suffix (with it, where
    two would be the same), a caption's that and its number, `1000092795#0`, in every layout the
    same. Listed in `skipped` are empty captions, lines that are broken or name no picture and,
    without a split, pictures that have no captions and what else was left out of their folder.

    Parameters
    ----------
    root
        The folder that holds the pictures in `Images/`, `images/`, `flickr30k_images/` (nested
        or not), `flickr30k-images/` or `Flicker8k_Dataset/`, and, beside them or among them,
        the captions.
    split
        "train", "val" or "test" of Karpathy's split, from `dataset_flickr30k.json` or
        `flickr30k_<split>_karpathy.txt`; None for all images, from the first that is there of
        `CAPTION_FILES` and `dataset_flickr30k.json`.

    Raises
    ------
    FileNotFoundError
        If the pictures' folder or the captions are not there.
    ValueError
        If the split is unknown or empty, or the file has an unknown header (`caption_tables`
        says which are known) or no sound line.
    """
    split = check_split(split, SPLITS)
    root = Path(root).expanduser().absolute()
    folder = _find_images(root)
    file = _find_captions(root, folder, split)
    read = _read_json if file.suffix == ".json" else _read_text
    captions, left = read(file, folder, split)
    if not captions:
        what = f"{file} names no image" + (f" of split {split!r}" if split else "")
        first = f"; left out: {len(left):,}, the first: {' '.join(left[0])}" if left else ""
        raise ValueError(what + first)
    place = folder.relative_to(root).as_posix()
    # Of one split, the pictures without captions are those of the others.
    skipped = left if split else left + _list_others(folder, place, captions, file)
    try:
        return _make_collection(root, place, captions, skipped, split)
    except ValueError as e:
        raise ValueError(f"{file}: {e}") from e


def _find_images(root: Path) -> Path:
    for name in IMAGE_FOLDERS:
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(
        f"no folder of images in {root}: looked for {', '.join(IMAGE_FOLDERS)}; "
        f"{list_content(root)}. {SOURCE}"
    )


def _find_captions(root: Path, folder: Path, split: str | None) -> Path:
    if split:
        names = (KARPATHY_JSON, f"flickr30k_{split}_karpathy.txt")
    else:
        names = (*CAPTION_FILES, KARPATHY_JSON)
    for name in names:
        for place in (root, folder, folder.parent):
            if (place / name).is_file():
                return place / name
    what = f"file of Karpathy's split for {split!r}" if split else "captions"
    raise FileNotFoundError(
        f"no {what} in {root}: looked for {', '.join(names)}; {list_content(root)}. {SOURCE}"
    )


def _list_others(folder: Path, place: str, captions: Captions, file: Path) -> Left:
    """List the pictures without captions, and what else was left out of their folder."""
    found = list_files(folder, readable_images(), unread_images())
    reasons = dict.fromkeys(found.paths, f"no caption in {file.name}") | found.skipped
    return [(f"{place}/{path}", why) for path, why in reasons.items() if path not in captions]


def _read_text(file: Path, folder: Path, split: str | None) -> tuple[Captions, Left]:
    content = read_captions(file)
    captions: Captions = {}
    strange: dict[str, list[int]] = {}  # names of no picture -> their lines
    for number, name, caption in content.rows:
        if _names_picture(name, folder):
            captions.setdefault(name, []).append(caption)
        else:
            strange.setdefault(name, []).append(number)
    left = [(f"{file.name}, line {number}", reason) for number, reason in content.broken]
    for name, lines in strange.items():
        texts = "1 caption" if len(lines) == 1 else f"{len(lines)} captions"
        left.append((f"{file.name}, line {lines[0]}", f"{name!r} is no picture: {texts} left out"))
    return captions, left


def _names_picture(name: str, folder: Path) -> bool:
    """Tell whether a name stays in the folder, and is there or could be that of a picture."""
    parts = name.split("/")
    if "" in parts or ".." in parts or "\0" in name or not is_text(name):
        return False
    return is_picture_name(name) or os.path.isfile(folder / name)


def _read_json(file: Path, folder: Path, split: str | None) -> tuple[Captions, Left]:
    captions, left = {}, []
    try:
        entries = list(enumerate(json.loads(file.read_bytes())["images"], start=1))
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise ValueError(f"{file} is not in the format of Karpathy's splits: {e!r}") from e
    for number, image in entries:
        where = f"{file.name}, image {number}"
        try:
            name, part = image["filename"], image["split"] if split else None
            texts, bad = _split_sentences(list(image["sentences"]))
            if not _names_picture(name, folder):
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


def _name_ids(captions: Captions) -> dict[str, str]:
    """Return file name -> id: the name without suffix, but with it where two would be the same."""
    count = Counter(Path(name).stem for name in captions)
    return {name: stem if count[stem := Path(name).stem] == 1 else name for name in captions}


def _make_collection(
    root: Path, place: str, captions: Captions, skipped: Left, split: str | None
) -> Collection:
    ids = _name_ids(captions)
    paths, unknown = [f"{place}/{name}" for name in ids], [-1] * len(ids)  # no picture is opened
    columns = {"image_id": ids.values(), "path": paths, "width": unknown, "height": unknown}
    images = make_table("images", columns)
    texts = [(ids[name], i, text) for name in ids for i, text in enumerate(captions[name])]
    columns = {
        "caption_id": [f"{image_id}#{number}" for image_id, number, _ in texts],
        "image_id": [image_id for image_id, _, _ in texts],
        "caption": [text for _, _, text in texts],
    }
    table, empty = drop_empty_captions(images, make_table("captions", columns))
    skipped = pd.concat([make_skipped(skipped), empty], ignore_index=True)
    return Collection(root, images, captions=table, name=root.name, split=split, skipped=skipped)


SPLITS_FASHION200K = ("train", "test")
ENDING = "_detect_all.txt"
QUERIES = "test_queries.txt"
SOURCE_FASHION200K = (
    "Fashion200K's labels and women.tar.gz can be had from the page of its author, Xintong Han "
    "(xthan/fashion-200k)."
)


def load_fashion200k(root: Path | str, split: str | None = None) -> Collection:
    """Load Fashion200K (Han et al., ICCV 2017).

    The collection holds the images that the label files name, on disk or not (see
    `Collection.missing_files`); the authors left about 100,000 others out of the files, for
    their low detection scores. An image's id is its published path, and so is the id of its
    caption, the product's description. Further columns of `images`: `label` str, the category
    (dress, jacket, pants, skirt or top); `product` str, the folder of the product's pictures;
    `detection_score` float, higher is surer; `split` str, "train" or "test".

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
    FileNotFoundError
        If there is no folder of pictures, or no label file of the split.
    ValueError
        If the split is unknown, or the label files are not UTF-8 or have no sound line at all.
    """
    split = check_split(split, SPLITS_FASHION200K)
    root = Path(root).expanduser().absolute()
    files = _find_labels(root, split)
    if not (root / "women").is_dir():
        raise FileNotFoundError(
            f"no folder women/ in {root}; {list_content(root)}. {SOURCE_FASHION200K}"
        )
    rows, left = [], []
    for file in files:
        sound, broken = _read_labels(file)
        rows, left = rows + sound, left + broken
        if not sound:
            left.append((f"labels/{file.name}", "label file that names no image"))
    if not rows:
        names = ", ".join(file.name for file in files)
        raise ValueError(
            f"no label file in {root / 'labels'} names an image: {names}; {' '.join(left[0])}"
        )
    try:
        return _make_collection_fashion200k(root, pd.DataFrame(rows), left, split)
    except ValueError as e:
        raise ValueError(f"the label files of {root}: {e}") from e


def load_fashion200k_queries(collection: Collection) -> pd.DataFrame:
    """Load the test queries of TIRG (Vo et al., CVPR 2019): an image and a change in words.

    TIRG counts every image with the target's description as right (`relevance.is_own_image`,
    given descriptions for ids, says which) and leaves the source image out of its own ranking.

    Parameters
    ----------
    collection
        The test split (or all) of Fashion200K, with `test_queries.txt` in its root.

    Returns
    -------
    pd.DataFrame
        One row a query: `source_id`, `target_id`, and `text`, TIRG's "replace a with b", where
        a and b are the first words that only the source's and the target's description have.
        Lines that are not two images of the collection with a description are left out, and
        listed as `attrs["skipped"]`, pairs of place and reason.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If no line is two images of the collection that have a description.
    """
    file = collection.root / QUERIES
    if not file.is_file():
        raise FileNotFoundError(
            f"no {QUERIES} in {collection.root}; {list_content(collection.root)}. It is published "
            "with TIRG, the code of Composing Text and Image for Image Retrieval."
        )
    descriptions = collection.captions.set_index("image_id")["caption"].to_dict()
    rows, left = [], []
    for number, line in read_lines(file):
        pair, where = line.split(), f"{file.name}, line {number}"
        if len(pair) != 2:
            left.append((where, f"is not two paths: {line[:200]!r}"))
        elif unknown := [path for path in pair if path not in descriptions]:
            left.append((where, f"{unknown[0]!r} is no image with a description"))
        else:
            rows.append((*pair, _describe_change(*(descriptions[path] for path in pair))))
    if not rows:
        first = f": {' '.join(left[0])}" if left else ""
        raise ValueError(f"{file} holds no query about {collection!r}{first}")
    queries = pd.DataFrame(rows, columns=["source_id", "target_id", "text"], dtype="str")
    queries.attrs["skipped"] = left
    return queries


def _find_labels(root: Path, split: str | None) -> list[Path]:
    pattern = f"*_{split}{ENDING}" if split else f"*{ENDING}"
    files = sorted((root / "labels").glob(pattern))
    if not files:
        folder = root / "labels" if (root / "labels").is_dir() else root
        raise FileNotFoundError(
            f"no label files in {root}: looked for labels/{pattern}; {list_content(folder)}. "
            f"{SOURCE_FASHION200K}"
        )
    return files


def _read_labels(file: Path) -> tuple[list[dict], list[tuple[str, str]]]:
    """Read one label file, named `<category>_<split>_detect_all.txt`: its rows, what is broken."""
    category, _, split = file.name.removesuffix(ENDING).rpartition("_")
    rows, broken = [], []
    for number, line in read_lines(file):
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
            rows.append(row | {"label": category, "split": split, "file": file.name})
    return rows, broken


def _describe_change(source: str, target: str) -> str:
    """Word a change as TIRG does; where all words are shared, the last one stands for it."""
    old, new = source.split(), target.split()
    removed = next((word for word in old if word not in new), old[-1])
    added = next((word for word in new if word not in old), new[-1])
    return f"replace {removed} with {added}"


def _make_collection_fashion200k(
    root: Path, table: pd.DataFrame, skipped: list[tuple[str, str]], split: str | None
) -> Collection:
    again = table["path"].duplicated()
    twice = [
        (row.path, f"listed a second time, in {row.file}") for row in table[again].itertuples()
    ]
    table = table[~again].reset_index(drop=True)
    paths, unknown = table["path"], [-1] * len(table)  # no picture is opened
    columns = {"image_id": paths, "path": paths, "width": unknown, "height": unknown}
    columns |= {"label": table["label"], "product": [Path(path).parent.name for path in paths]}
    columns |= {name: table[name] for name in ("detection_score", "split")}
    images = make_table("images", columns)
    captions = {"caption_id": paths, "image_id": paths, "caption": table["caption"]}
    described, empty = drop_empty_captions(images, make_table("captions", captions))
    return Collection(
        root,
        images,
        captions=described,
        name=root.name,
        split=split,
        skipped=pd.concat([make_skipped(skipped + twice), empty], ignore_index=True),
    )
