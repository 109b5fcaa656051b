"""Which gallery images answer a query: what every metric is measured against.

Each function returns a relevance matrix (q, n), rows the queries and columns the gallery.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regionlab.collection import Collection


def is_own_image(query_ids: Sequence[str], gallery_ids: Sequence[str]) -> np.ndarray:
    """Tell which gallery image each query belongs to: one right answer, a caption's own picture.

    Parameters
    ----------
    query_ids
        (q,) the image that each query is about.
    gallery_ids
        (n,) unique.

    Returns
    -------
    np.ndarray
        (q, n) bool; a row without True is a query whose image is not in the gallery.
    """
    return np.asarray(query_ids, object)[:, None] == np.asarray(gallery_ids, object)[None, :]


def count_shared_kinds(
    collection: Collection,
    query_ids: Sequence[str],
    gallery_ids: Sequence[str],
    *,
    by: Sequence[str] = ("category",),
) -> np.ndarray:
    """Count the kinds of object that two images have in common.

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

    Returns
    -------
    np.ndarray
        (q, n) int64, a graded relevance; 0 is not relevant.

    Raises
    ------
    ValueError
        If a column of `by` is not there.
    """
    objects = collection.objects
    if missing := [column for column in by if column not in objects]:
        raise ValueError(
            f"no column {missing[0]!r} in the objects of {collection!r}; "
            f"there are: {', '.join(objects.columns)}"
        )
    objects = objects[~objects["iscrowd"]]
    kinds = objects.groupby(list(by)).ngroup()
    present = pd.crosstab(objects["image_id"], kinds) > 0
    queries, gallery = (
        present.reindex(list(ids), fill_value=False).to_numpy(np.float32)
        for ids in (query_ids, gallery_ids)
    )
    return (queries @ gallery.T).astype(np.int64)
