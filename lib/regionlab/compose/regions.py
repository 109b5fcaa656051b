"""A region and a modification text: "this object, but green", asked of the regions of an index."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from regionlab.compose.composers import Compose
from regionlab.data.collection import Collection
from regionlab.index.index import Index
from regionlab.metrics.ranking import holds_kinds_of
from regionlab.search.query import Query
from regionlab.search.regions import RegionRanking, search_regions

PLACELESS = {"box": None, "rle": None}  # what is composed is in no place


def sample_changes(
    collection: Collection,
    objects: pd.DataFrame,
    *,
    column: str,
    by: Sequence[str],
    words: str,
    seed: int,
) -> pd.DataFrame:
    """Sample for each object another value of one column that some other image answers.

    Parameters
    ----------
    objects
        Rows of `collection.objects`.
    column
        What changes, such as "color".
    by
        Columns that make objects the same kind, `column` among them.
    words
        How the change is said: "make the {category} {new}", with columns in braces and "{new}"
        for the new value.

    Returns
    -------
    pd.DataFrame
        `object_id` and `image_id` of the object, `words`, and `example`, the id of some object
        of the kind that is wanted. Objects that no other image answers are left out.

    Raises
    ------
    ValueError
        If `column` is none of `by`, or none of the columns.
    """
    if column not in by or column not in collection.objects:
        raise ValueError(f"column {column!r} must be one of {list(by)} and of the objects")
    rng = np.random.default_rng(seed)
    known = collection.objects[~collection.objects["iscrowd"]].dropna(subset=list(by))
    same = [name for name in by if name != column]
    groups = dict(list(known.groupby(same))) if same else {(): known}
    rows = []
    for _, thing in objects.iterrows():
        alike = groups.get(tuple(thing[same]), known[:0])
        other = alike[(alike[column] != thing[column]) & (alike["image_id"] != thing["image_id"])]
        if len(other):
            new = rng.choice(np.sort(other[column].unique()))
            example = other["object_id"][other[column] == new].iloc[0]
            said = words.format(**thing.to_dict(), new=new)
            rows.append((thing["object_id"], thing["image_id"], said, example))
    return pd.DataFrame(rows, columns=["object_id", "image_id", "words", "example"])


def holds_changes(
    collection: Collection, changes: pd.DataFrame, gallery_ids: Sequence[str], *, by: Sequence[str]
) -> np.ndarray:
    """Tell which images hold an object of the kind that each change asks for, (q, n) bool."""
    wanted = [[example] for example in changes["example"]]
    return holds_kinds_of(collection, wanted, gallery_ids, by=by)


def search_changed_regions(
    index: Index,
    queries: Sequence[Query],
    words: Sequence[str],
    compose: Compose,
    *,
    k: int,
    exclude: np.ndarray | None = None,
) -> RegionRanking:
    """Search for regions changed by words; `k` and `exclude` as for `search_regions`.

    Parameters
    ----------
    queries
        (q,) of one or several parts; the words change the first, the others stay.
    words
        (q,) the change of each.
    compose
        Vectors and words to vectors, see `Composer.compose`.
    """
    firsts = np.stack([query.parts[0].vector for query in queries])
    composed = compose(firsts, list(words))
    changed = [
        Query((replace(query.parts[0], vector=vector, **PLACELESS, label=said), *query.parts[1:]))
        for query, vector, said in zip(queries, composed, words, strict=True)
    ]
    return search_regions(index, changed, k=k, exclude=exclude)
