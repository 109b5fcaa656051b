"""Triplets of composed retrieval: a reference image, a change in words, a target image.

Read from the files of CIRR (Liu et al., ICCV 2021) and FashionIQ (Wu et al., CVPR 2021).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from regionlab.data.listing import is_text, show
from regionlab.data.records import (
    BadValue,
    read_annotations,
    take_entry,
    take_file_name,
    take_texts,
)
from regionlab.util.errors import InputError, MissingFileError

COLUMNS = ("query_id", "reference", "target", "captions", "subset")
PUNCTUATION = ".?, "  # what the papers strip from the ends of a caption
NO_WORDS = "."  # stands for a query without words: encoders refuse an empty text
MOST_CAPTIONS = 2

CIRR_VERSION = "rc2"
CIRR_SUBSET = 6
CIRR_SOURCE = (
    "CIRR's annotations can be had from the repository of its authors (Cuberick-Orion/CIRR, "
    "branch cirr_dataset); the pictures are those of NLVR2, which its authors give on request."
)
FASHIONIQ_SUFFIXES = (".jpg", ".png")
FASHIONIQ_SOURCE = (
    "FashionIQ's captions and image splits can be had from the repository of its authors "
    "(XiaoxiaoGuo/fashion-iq), and the addresses of the pictures with them."
)

Faults = list[tuple[str, str]]  # what is wrong: a query id or a place in a file, and the reason


@dataclass(frozen=True, eq=False, repr=False)
class Triplets:
    """The queries of one split of a composed retrieval data set, and the images they search.

    Checked when made (InputError); afterwards treat the tables as read-only.

    A row of `queries` (see `make_queries`) has: `query_id` str, unique; `reference` str, the image
    that is changed; `target` str, the image that is wanted, None where the split hides it;
    `captions` tuple of str, what is to change, which may be empty only where the target is hidden;
    `subset` tuple of the images that look alike, reference and target among them, empty where the
    data set has none. A row of `faults` has `query_id` and `reason`: what is wrong with a query
    that can still be used, or why it was left out.
    """

    name: str
    split: str
    category: str  # "" where the data set has none
    queries: pd.DataFrame
    gallery: tuple[str, ...]  # the names of all images of the split, in the order of its file
    files: Mapping[str, Path]  # where each of them should lie; see `missing_images`
    faults: pd.DataFrame = field(default_factory=lambda: make_faults([]))

    def __post_init__(self) -> None:
        _check_names("images", self.gallery)
        if lost := [name for name in self.gallery if name not in self.files]:
            raise InputError(f"files does not say where image {lost[0]!r} lies")
        if lost := [column for column in COLUMNS if column not in self.queries]:
            raise InputError(f"queries have no column {lost[0]!r}, only {list(self.queries)}")
        _check_names("query ids", self.queries["query_id"])
        for query in self.queries.itertuples():
            if error := _find_error(query, self._rows):
                raise InputError(f"query {query.query_id!r}: {error}")
        if self.queries["subset"].map(bool).nunique() > 1:
            raise InputError("some queries have a subset and some have none")

    def __len__(self) -> int:
        return len(self.queries)

    def __repr__(self) -> str:
        faults = f", {len(self.faults):,} with a fault" if len(self.faults) else ""
        counts = f"{len(self):,} queries{faults}, {len(self.gallery):,} images"
        return f"<Triplets {self.title}: {counts}>"

    @property
    def title(self) -> str:
        """Name, category and split, for a message or a table."""
        return " ".join(filter(None, (self.name, self.category, self.split)))

    @property
    def reference_rows(self) -> np.ndarray:
        """(q,) int64, the row of each query's reference in the gallery."""
        return self.rows_of(self.queries["reference"])

    @cached_property
    def target_rows(self) -> np.ndarray:
        """(q,) int64, the row of each query's target in the gallery; -1 where it is hidden."""
        rows = [-1 if name is None else self._rows[name] for name in self.queries["target"]]
        return np.array(rows, np.int64)

    @property
    def union_rows(self) -> np.ndarray:
        """Rows of the images that are some query's reference or target, in rising order."""
        named = np.union1d(self.reference_rows, self.target_rows)
        return named[named >= 0]

    def rows_of(self, names: Iterable[str]) -> np.ndarray:
        """Return the (m,) int64 rows of the images named; KeyError for one not in the gallery."""
        names = list(names)
        if lost := [name for name in names if name not in self._rows]:
            raise KeyError(f"no image {lost[0]!r} in {self.title}")
        return np.array([self._rows[name] for name in names], np.int64)

    def texts(self, *, rng: np.random.Generator | None = None) -> list[str]:
        """Return one text a query: its captions as `join_captions` joins them."""
        return [join_captions(captions, rng=rng) for captions in self.queries["captions"]]

    def missing_images(self) -> list[str]:
        """Return the names of the images of the gallery whose file is not on disk."""
        return [name for name in self.gallery if not Path(self.files[name]).is_file()]

    def with_images(self) -> tuple["Triplets", list[str]]:
        """Leave out the images not on disk, see `without`; MissingFileError if no query is left."""
        missing = self.missing_images()
        try:
            return self.without(missing), missing
        except InputError as e:
            example = f", such as {self.files[missing[0]]}" if missing else ""
            raise MissingFileError(f"missing images{example}: {e}") from e

    def without(self, names: Iterable[str]) -> "Triplets":
        """Leave out some images and the queries that name one of them.

        A query is left out for its reference, its target or any image of its subset, and is
        then listed in `faults`. Counts are no longer the published ones: report them. Raises
        KeyError for a name that is not in the gallery, and InputError if no query is left.
        """
        lost = {self.gallery[row] for row in self.rows_of(names)}
        blocked = {
            query.query_id: name
            for query in self.queries.itertuples()
            for name in _names_of(query)
            if name in lost
        }
        if len(blocked) == len(self):
            raise InputError(
                f"no query of {self.title} is left without {len(lost):,} of "
                f"{len(self.gallery):,} images"
            )
        queries = self.queries[~self.queries["query_id"].isin(blocked)].reset_index(drop=True)
        gallery = tuple(name for name in self.gallery if name not in lost)
        files = {name: self.files[name] for name in gallery}
        left_out = [(id_, f"left out with image {name!r}") for id_, name in blocked.items()]
        faults = pd.concat([self.faults, make_faults(left_out)], ignore_index=True)
        return replace(self, queries=queries, gallery=gallery, files=files, faults=faults)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.gallery)}


def make_queries(rows: Iterable[tuple]) -> pd.DataFrame:
    """Make the table of queries of tuples in the order of `COLUMNS`; None stays None."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS), dtype=object)


def make_faults(rows: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Make the table of faults of pairs of query id and reason."""
    return pd.DataFrame(list(rows), columns=["query_id", "reason"], dtype=object)


def join_captions(captions: Sequence[str], *, rng: np.random.Generator | None = None) -> str:
    """Make one text of a query's captions, as CLIP4Cir does (Baldrati et al., CVPRW 2022).

    No caption gives ".", the nearest to no words that an encoder takes; one stays as it is. Two
    become "First and second": without full stops, question marks, commas and blanks at their
    ends, and capitalized, which also puts all other letters in lower case. With `rng`, for
    training, "First and second", "Second and first", "First" and "Second" are equally likely.
    Raises InputError if a caption has no words or there are more than two.
    """
    if isinstance(captions, str):
        raise InputError(f"captions must be a tuple of texts, got the text {captions!r}")
    if error := _find_caption_error(captions):
        raise InputError(error)
    if len(captions) < 2:
        return captions[0] if captions else NO_WORDS
    first, second = (caption.strip(PUNCTUATION) for caption in captions)
    forms = (f"{first.capitalize()} and {second}", f"{second.capitalize()} and {first}",
             first.capitalize(), second.capitalize())  # fmt: skip
    return forms[0 if rng is None else rng.integers(len(forms))]


def has_words(caption: str) -> bool:
    """Tell whether a caption holds more than punctuation and blanks at its ends."""
    return caption.strip(PUNCTUATION).strip() != ""


def _names_of(query) -> list[str]:
    named = (query.reference, query.target, *query.subset)
    return [name for name in named if name is not None]


def _check_names(what: str, names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise InputError(f"{what} must be texts that are not empty, got {name!r}")
        if name in seen:
            raise InputError(f"{what} must be unique; {name!r} comes more than once")
        seen.add(name)


def _find_error(query, rows: Mapping[str, int]) -> str | None:
    """Say what makes a query unusable, None for nothing."""
    for column in ("captions", "subset"):
        if not isinstance(value := getattr(query, column), tuple):
            return f"{column} must be a tuple, got {value!r}"
    for name in (query.reference, *_names_of(query)):
        if not isinstance(name, str) or name not in rows:
            return f"image {name!r} is not in the split"
    if query.target == query.reference:
        return f"the target is the reference, {query.reference!r}"
    if not query.captions and query.target is not None:
        return "no caption has words"
    return _find_caption_error(query.captions) or _find_subset_error(query)


def _find_caption_error(captions: Sequence[str]) -> str | None:
    if len(captions) > MOST_CAPTIONS:
        return f"at most {MOST_CAPTIONS} captions are possible, got {len(captions)}"
    without = [text for text in captions if not isinstance(text, str) or not has_words(text)]
    return f"caption {without[0]!r} has no words" if without else None


def _find_subset_error(query) -> str | None:
    if len(set(query.subset)) < len(query.subset):
        return f"an image comes twice in the subset {query.subset}"
    for name in (query.reference, query.target):
        if query.subset and name is not None and name not in query.subset:
            return f"image {name!r} is not in the query's own subset {query.subset}"
    return None


def load_cirr(root: Path | str, *, split: str = "val", category: str | None = None) -> Triplets:
    """Load one split of CIRR (Liu et al., ICCV 2021), version rc2.

    A query has one caption and a subset of six images; its id is the published `pairid`, its
    target `target_hard`. Of test1 the targets are hidden, and one query without words stays, as the
    server wants an answer to each. It is listed in `faults`, and so is what is left out: entries
    that are broken, or contradict themselves, and images without a path.

    Parameters
    ----------
    root
        The folder that holds `captions/` and `image_splits/`, or the one above, in which that
        folder is named `cirr`. The image split gives paths such as `./dev/x.png`; the folder
        `dev` stands beside `cirr`, as published, or in it.
    split
        "train", "val" or "test1"; any of which there is a file `captions/cap.rc2.<split>.json`.
    category
        None: CIRR has no categories.

    Raises
    ------
    MissingFileError, InputError
        If there are no captions, no image split, a file is broken, or no query is left.
    """
    if category:
        raise InputError(f"CIRR has no categories, got category={category!r}")
    root = _find_cirr(root)
    if split not in (known := _list_cirr_splits(root)):
        raise InputError(
            f"no captions of split {split!r} in {root}, but of {', '.join(known)}. {CIRR_SOURCE}"
        )
    splits = root / "image_splits" / f"split.{CIRR_VERSION}.{split}.json"
    files, lost = _locate_cirr_images(root, splits)
    captions = root / "captions" / f"cap.{CIRR_VERSION}.{split}.json"
    entries = read_annotations(captions, list, CIRR_SOURCE)
    read = partial(_read_cirr_query, hidden=_hides_targets(entries, "target_hard"))
    queries, faults = _read_queries(captions, entries, read, files, lost)
    return Triplets("cirr", split, "", queries, tuple(files), files, faults)


def _find_cirr(root: Path | str) -> Path:
    root = Path(root).expanduser().absolute()
    for folder in (root, root / "cirr"):
        if _list_cirr_splits(folder):
            return folder
    raise MissingFileError(f"no captions/cap.{CIRR_VERSION}.<split>.json in {root}. {CIRR_SOURCE}")


def _list_cirr_splits(root: Path) -> list[str]:
    files = (root / "captions").glob(f"cap.{CIRR_VERSION}.*.json")
    return sorted(file.name.split(".")[2] for file in files)


def _locate_cirr_images(root: Path, file: Path) -> tuple[dict[str, Path], Faults]:
    paths, faults = {}, []
    for name, path in read_annotations(file, dict, CIRR_SOURCE).items():
        try:
            if not name or not is_text(name):
                raise BadValue("which is no name")
            paths[name] = take_file_name({"path": path}, "path")
        except BadValue as e:
            faults.append((f"image {name!r}", f"left out of {file.name}: {e}"))
    folders = {PurePosixPath(path).parts[0] for path in paths.values()}
    above = root.parent if root.name == "cirr" else root
    base = root if any((root / folder).is_dir() for folder in folders) else above
    return {name: base / path for name, path in paths.items()}, faults


def _read_cirr_query(entry: dict, *, hidden: bool) -> tuple[tuple, Faults]:
    query_id = str(take_entry(entry, "pairid", (int, str)))
    target = None if hidden else take_entry(entry, "target_hard", str)
    captions, faults = _keep_captions(query_id, (take_entry(entry, "caption", str),))
    subset = take_texts(take_entry(entry, "img_set", dict), "members")
    if len(subset) != CIRR_SUBSET:
        raise BadValue(f"a subset holds {CIRR_SUBSET} images, got {len(subset)}")
    return (query_id, take_entry(entry, "reference", str), target, captions, subset), faults


def list_categories(root: Path | str, split: str = "val") -> list[str]:
    """List the categories that have captions of a split, sorted; FashionIQ has three."""
    return sorted(category for category, found in _list_fashioniq(root) if found == split)


def load_fashioniq(
    root: Path | str,
    *,
    split: str = "val",
    category: str | None = "dress",
    images: Path | str = "images",
) -> Triplets:
    """Load one category of FashionIQ (Wu et al., CVPR 2021).

    Each query has two captions of its own, by two people. A caption without words is left out
    and listed in `faults`; its query stays, with the other caption, so that the counts are the
    published ones. Entries that are broken, or contradict themselves, and what is no name are left
    out and listed there too. A query's id is "reference>target", with a number where the pair
    comes again, as it does where the split hides the targets (test).

    Parameters
    ----------
    root
        The folder that holds `captions/` and `image_splits/`.
    split
        "train", "val" or "test".
    category
        "dress", "shirt" or "toptee"; any `<category>` of which there is a file
        `captions/cap.<category>.<split>.json`.
    images
        The folder of the images, `<name>.jpg` or `.png`; relative to `root`, or absolute.

    Raises
    ------
    MissingFileError, InputError
        If there are no captions of this split and category, no image split, a file is broken, or
        no query is left.
    """
    root = Path(root).expanduser().absolute()
    _check_fashioniq(root, split, category)
    names, lost = _read_names(root / "image_splits" / f"split.{category}.{split}.json")
    captions = root / "captions" / f"cap.{category}.{split}.json"
    entries = read_annotations(captions, list, FASHIONIQ_SOURCE)
    hidden = _hides_targets(entries, "target")
    read = partial(_read_fashioniq_query, hidden=hidden, times={})
    queries, faults = _read_queries(captions, entries, read, names, lost)
    files = _locate_fashioniq_images(root / images, names)
    return Triplets("fashioniq", split, category, queries, names, files, faults)


def _list_fashioniq(root: Path | str) -> list[tuple[str, str]]:
    files = (Path(root).expanduser() / "captions").glob("cap.*.*.json")
    return [tuple(file.name.split(".", 1)[1].rsplit(".", 2)[:2]) for file in files]


def _check_fashioniq(root: Path, split: str, category: str | None) -> None:
    found, known = _list_fashioniq(root), list_categories(root, split)
    if not category:
        raise InputError(
            f"FashionIQ is loaded by category; {root} has, of {split!r}: "
            f"{', '.join(known) or 'none'}"
        )
    if not found:
        raise MissingFileError(
            f"no captions/cap.<category>.<split>.json in {root}. {FASHIONIQ_SOURCE}"
        )
    missing = f"split {split!r}" if not known else f"category {category!r} and split {split!r}"
    if category not in known:
        others = ", ".join(known or sorted({each for _, each in found}))
        raise InputError(f"no captions of {missing} in {root}, but of {others}. {FASHIONIQ_SOURCE}")


def _read_names(file: Path) -> tuple[tuple[str, ...], Faults]:
    names, faults = {}, []
    for name in read_annotations(file, list, FASHIONIQ_SOURCE):
        if not isinstance(name, str) or not name or {"/", "\\", "\0"} & set(name):
            faults.append((f"image {show(name)}", f"left out of {file.name}: it is no name"))
        elif not is_text(name) or name in names:
            what = "comes a second time" if name in names else "holds half a character"
            faults.append((f"image {show(name)}", f"left out of {file.name}: it {what}"))
        else:
            names[name] = None
    return tuple(names), faults


def _read_fashioniq_query(
    entry: dict, *, hidden: bool, times: dict[str, int]
) -> tuple[tuple, Faults]:
    reference = take_entry(entry, "candidate", str)
    target = None if hidden else take_entry(entry, "target", str)
    texts = take_texts(entry, "captions")
    query_id = f"{reference}>{target or '?'}"
    times[query_id] = times.get(query_id, 0) + 1
    query_id += f"#{times[query_id]}" if times[query_id] > 1 else ""
    captions, faults = _keep_captions(query_id, texts)
    return (query_id, reference, target, captions, ()), faults


def _locate_fashioniq_images(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    files = {}
    for name in names:
        found = [suffix for suffix in FASHIONIQ_SUFFIXES if name + suffix in there]
        files[name] = folder / f"{name}{(found or FASHIONIQ_SUFFIXES)[0]}"
    return files


def _read_queries(
    file: Path,
    entries: list,
    read: Callable[[dict], tuple[tuple, Faults]],
    gallery: Iterable[str],
    lost: Faults,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of queries and faults of a file's entries; unusable ones are faults.

    Of two queries with one id the first stays.
    """
    rows, broken = [], []
    for number, entry in enumerate(entries):
        try:
            row, found = read(entry)
        except BadValue as e:
            broken.append((f"entry {number}", f"left out: {e}"))
        else:
            rows.append(row)
            broken += found
    images = {name: row for row, name in enumerate(gallery)}
    sound, unsound = {}, []
    for query in make_queries(rows).itertuples(index=False):
        error = _find_error(query, images)
        if query.query_id in sound:
            error = "the id comes a second time"
        if error:
            unsound.append((query.query_id, f"left out: {error}"))
        else:
            sound[query.query_id] = tuple(query)
    faults = lost + broken + unsound
    if not sound:
        raise InputError(f"{file}: no query can be used; {' is '.join(faults[0])}")
    return make_queries(sound.values()), make_faults(faults)


def _hides_targets(entries: list, key: str) -> bool:  # most entries have none
    return 2 * sum(isinstance(entry, dict) and key in entry for entry in entries) < len(entries)


def _keep_captions(query_id: str, captions: Sequence[str]) -> tuple[tuple[str, ...], Faults]:
    """Return the captions that have words, and one fault for each of the others."""
    faults = [
        (query_id, f"caption {i} of {len(captions)} has no words: {caption!r}")
        for i, caption in enumerate(captions, start=1)
        if not has_words(caption)
    ]
    return tuple(filter(has_words, captions)), faults
