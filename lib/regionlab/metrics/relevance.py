"""Which gallery images answer a query: what every metric is measured against.

Each function returns a relevance matrix (q, n), rows the queries and columns the gallery.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regionlab.data.collection import Collection


def is_own_image(query_ids: Sequence[str], gallery_ids: Sequence[str]) -> np.ndarray:
    """Tell which gallery image each query belongs to, (q, n) bool: one right answer.

    `query_ids` (q,) are the images that the queries are about, such as a caption's own; a row
    without True is a query whose image is not in the gallery.
    """
    return np.asarray(query_ids, object)[:, None] == np.asarray(gallery_ids, object)[None, :]


def count_shared_kinds(
    collection: Collection,
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
    *,
    by: Sequence[str] = ("category",),
) -> np.ndarray:
    """Count the kinds of object that two images have in common: a graded relevance, (q, n) int64.

    Objects are of one kind if they agree in all columns of `by`; crowds are left out. An image
    shares all its kinds with itself: whether it is in its own gallery is for the ranking to say.

    Parameters
    ----------
    collection
        Whose `objects` tell.
    query_ids, gallery_ids
        Images, (q,) and (n,).
    by
        Columns of `objects`, such as ("category", "color", "texture").
    """
    present = _count_kinds(collection, by) > 0
    queries, gallery = (
        present.reindex(list(ids), fill_value=False).to_numpy(np.float32)
        for ids in (query_ids, gallery_ids)
    )
    return (queries @ gallery.T).astype(np.int64)


def holds_kinds_of(
    collection: Collection,
    groups: Sequence[Sequence[str]],
    gallery_ids: Sequence[str],
    *,
    by: Sequence[str] = ("category",),
) -> np.ndarray:
    """Tell which images hold an object of the kind of each object asked about, (q, n) bool.

    Two objects of one kind need two in the image, and crowds are left out: "a chair and a
    table" is not answered by two chairs, nor "two chairs" by one.

    Parameters
    ----------
    collection, by
        As for `count_shared_kinds`.
    groups
        (q,) the ids of the objects that each query asks about, one or several.
    gallery_ids
        (n,) images.

    Raises
    ------
    ValueError
        If a column of `by` is not there, or a query asks about nothing.
    KeyError
        If an object is unknown, a crowd, or of no kind for want of a value in `by`.
    """
    if empty := [number for number, group in enumerate(groups) if not len(group)]:
        raise ValueError(f"query {empty[0]} asks about no object")
    counts = _count_kinds(collection, by)
    kinds = _name_kinds(collection, by)
    gallery = counts.reindex(list(gallery_ids), fill_value=0)
    answers = []
    for group in groups:
        wanted = kinds.loc[list(group)].value_counts()
        answers.append((gallery[wanted.index].to_numpy() >= wanted.to_numpy()).all(axis=1))
    return np.array(answers).reshape(len(groups), len(gallery))


def _count_kinds(collection: Collection, by: Sequence[str]) -> pd.DataFrame:
    """How many objects of each kind (columns) each image (index) holds."""
    kinds = _name_kinds(collection, by)
    images = collection.objects.set_index("object_id")["image_id"].loc[kinds.index]
    return pd.crosstab(images.to_numpy(), kinds.to_numpy())


def _name_kinds(collection: Collection, by: Sequence[str]) -> pd.Series:
    """Return the kind of each object, a number by object id, without crowds and the kindless."""
    objects = collection.objects
    if missing := [column for column in by if column not in objects]:
        raise ValueError(
            f"no column {missing[0]!r} in the objects of {collection!r}; "
            f"there are: {', '.join(objects.columns)}"
        )
    objects = objects[~objects["iscrowd"]].set_index("object_id")
    return objects.dropna(subset=list(by)).groupby(list(by)).ngroup()
