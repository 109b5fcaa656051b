"""Triplets of composed retrieval: a reference picture, a change in words, a target picture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = ("query_id", "reference", "target", "captions", "subset")
PUNCTUATION = ".?, "  # what the papers strip from the ends of a caption
NO_WORDS = "."  # stands for a query without words: encoders refuse an empty text
MOST_CAPTIONS = 2


@dataclass(frozen=True, eq=False, repr=False)
class Triplets:
    """The queries of one split of a composed retrieval data set, and the images they search.

    Checked when made; afterwards treat the tables as read-only.

    Parameters
    ----------
    name, split
        Of the data set, such as "cirr" and "val".
    category
        "" where the data set has none.
    queries
        One row a query, made by `make_queries`: `query_id` str, unique; `reference` str, the
        image that is changed; `target` str, the image that is wanted, None where the split
        hides it; `captions` tuple of str, what is to change; `subset` tuple of the images that
        look alike, reference and target among them, empty where the data set has none. A query
        whose target is hidden may have no captions at all.
    gallery
        The names of all images of the split, in the order of its file.
    files
        Where each image of the gallery should lie; see `missing_images`.
    faults
        What is wrong with a query that can still be used, or why it was left out: `query_id`,
        `reason`.

    Raises
    ------
    ValueError
        If a column is missing, an id or a name comes twice or is no text, an image has no file,
        or a query names an image that is not in the gallery, has its reference for a target, a
        caption without words, or a subset without its reference or target.
    """

    name: str
    split: str
    category: str
    queries: pd.DataFrame
    gallery: tuple[str, ...]
    files: Mapping[str, Path]
    faults: pd.DataFrame = field(default_factory=lambda: make_faults([]))

    def __post_init__(self) -> None:
        _check_names("images", self.gallery)
        if lost := [name for name in self.gallery if name not in self.files]:
            raise ValueError(f"files does not say where image {lost[0]!r} lies")
        if lost := [column for column in COLUMNS if column not in self.queries]:
            raise ValueError(f"queries have no column {lost[0]!r}, only {list(self.queries)}")
        _check_names("query ids", self.queries["query_id"])
        for query in self.queries.itertuples():
            if error := _find_error(query, self._rows):
                raise ValueError(f"query {query.query_id!r}: {error}")
        if self.queries["subset"].map(bool).nunique() > 1:
            raise ValueError("some queries have a subset and some have none")

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
        """Return the rows of the gallery that hold the images named, (m,) int64.

        Raises
        ------
        KeyError
            If a name is not in the gallery.
        """
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
        """Leave out the images whose file is missing and the queries that name one.

        Returns
        -------
        triplets
            Those whose images are all there, see `without`.
        missing
            The names of the images left out.

        Raises
        ------
        FileNotFoundError
            If no query is left.
        """
        missing = self.missing_images()
        try:
            return self.without(missing), missing
        except ValueError as e:
            example = f", such as {self.files[missing[0]]}" if missing else ""
            raise FileNotFoundError(f"missing images{example}: {e}") from e

    def without(self, names: Iterable[str]) -> "Triplets":
        """Leave out some images and the queries that name one of them.

        A query is left out for its reference, its target or any image of its subset, and is
        then listed in `faults`. Counts are no longer the published ones: report them.

        Raises
        ------
        KeyError
            If a name is not in the gallery.
        ValueError
            If no query is left.
        """
        lost = {self.gallery[row] for row in self.rows_of(names)}
        blocked = {
            query.query_id: name
            for query in self.queries.itertuples()
            for name in _names_of(query)
            if name in lost
        }
        if len(blocked) == len(self):
            raise ValueError(
                f"no query of {self.title} is left without {len(lost):,} of "
                f"{len(self.gallery):,} images"
            )
        queries = self.queries[~self.queries["query_id"].isin(blocked)].reset_index(drop=True)
        gallery = tuple(name for name in self.gallery if name not in lost)
        files = {name: self.files[name] for name in gallery}
        left_out = make_faults(
            (query_id, f"left out with image {name!r}") for query_id, name in blocked.items()
        )
        faults = pd.concat([self.faults, left_out], ignore_index=True)
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


def keep_sound(
    rows: Iterable[tuple], gallery: Iterable[str]
) -> tuple[list[tuple], list[tuple[str, str]]]:
    """Part the rows of a table of queries into those that `Triplets` takes, and faults.

    Of two queries with one id the first stays.
    """
    images = {name: row for row, name in enumerate(gallery)}
    sound, faults, seen = [], [], set()
    for query in make_queries(rows).itertuples(index=False):
        error = _find_error(query, images)
        if query.query_id in seen:
            error = "the id comes a second time"
        if error:
            faults.append((query.query_id, f"left out: {error}"))
        else:
            sound.append(tuple(query))
            seen.add(query.query_id)
    return sound, faults


def join_captions(captions: Sequence[str], *, rng: np.random.Generator | None = None) -> str:
    """Make one text of a query's captions, as CLIP4Cir does (Baldrati et al., CVPRW 2022).

    One caption stays as it is. Two become "First and second": without full stops, question
    marks, commas and blanks at their ends, and capitalized, which also puts all other letters
    in lower case. With a generator, for training, "First and second", "Second and first",
    "First" and "Second" are equally likely.

    Parameters
    ----------
    captions
        One or two; none gives ".", the nearest to no words that an encoder takes.
    rng
        Draws the form; None always gives the first.

    Raises
    ------
    ValueError
        If a caption has no words, there are more than two, or `captions` is itself a text.
    """
    if isinstance(captions, str):
        raise ValueError(f"captions must be a tuple of texts, got the text {captions!r}")
    if error := _find_caption_error(captions):
        raise ValueError(error)
    if len(captions) < 2:
        return captions[0] if captions else NO_WORDS
    first, second = (caption.strip(PUNCTUATION) for caption in captions)
    forms = (f"{first.capitalize()} and {second}", f"{second.capitalize()} and {first}",
             first.capitalize(), second.capitalize())  # fmt: skip
    return forms[0 if rng is None else rng.integers(len(forms))]


def has_words(caption: str) -> bool:
    """Tell whether a caption holds more than punctuation and blanks at its ends."""
    return caption.strip(PUNCTUATION).strip() != ""


def keep_captions(query_id: str, captions: Sequence[str]) -> tuple[tuple[str, ...], list]:
    """Return the captions that have words, and one fault for each of the others."""
    faults = [
        (query_id, f"caption {i} of {len(captions)} has no words: {caption!r}")
        for i, caption in enumerate(captions, start=1)
        if not has_words(caption)
    ]
    return tuple(caption for caption in captions if has_words(caption)), faults


def _names_of(query) -> list[str]:
    """Return the images that a query names, its target only where it is not hidden."""
    target = [] if query.target is None else [query.target]
    return [query.reference, *target, *query.subset]


def _check_names(what: str, names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{what} must be texts that are not empty, got {name!r}")
        if name in seen:
            raise ValueError(f"{what} must be unique; {name!r} comes more than once")
        seen.add(name)


def _find_error(query, rows: dict[str, int]) -> str | None:
    """Say what makes a query unusable, None for nothing."""
    for column in ("captions", "subset"):
        if not isinstance(value := getattr(query, column), tuple):
            return f"{column} must be a tuple, got {value!r}"
    for name in _names_of(query):
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
    for caption in captions:
        if not isinstance(caption, str) or not has_words(caption):
            return f"caption {caption!r} has no words"
    return None


def _find_subset_error(query) -> str | None:
    if not query.subset:
        return None
    if len(set(query.subset)) < len(query.subset):
        return f"an image comes twice in the subset {query.subset}"
    for name in _names_of(query)[: 1 if query.target is None else 2]:
        if name not in query.subset:
            return f"image {name!r} is not in the query's own subset {query.subset}"
    return None
