"""The object or its background: rivals of a query, and where a ranking puts them (S1, figure 4)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regionlab.collection import Collection
from regionlab.search import Ranking


def draw_triples(
    collection: Collection,
    objects: pd.DataFrame,
    *,
    seed: int,
    by: Sequence[str] = ("category",),
    ground: str = "ground",
) -> pd.DataFrame:
    """Draw for each object S1's figure-4 triple: its right and its wrong rival.

    The right image holds an object of the same kind on another ground; the wrong one has the
    query's ground and no object of the kind.

    Parameters
    ----------
    objects
        From `draw_objects`.
    ground
        Column of `collection.images`.

    Returns
    -------
    pd.DataFrame
        `object_id`, `image_id`, and the image ids `right` and `wrong`. Objects for which there
        is no such image are left out.

    Raises
    ------
    ValueError
        If the images have no such column.
    """
    if ground not in collection.images:
        raise ValueError(f"the images of {collection!r} have no column {ground!r}")
    rng = np.random.default_rng(seed)
    grounds = collection.images.set_index("image_id")[ground]
    holders = collection.objects.groupby(list(by))["image_id"].agg(set)
    triples = []
    for _, row in objects.iterrows():
        kind = tuple(row[column] for column in by)
        same = grounds.index.isin(holders.loc[kind if len(by) > 1 else kind[0]])
        alike = (grounds == grounds[row["image_id"]]).to_numpy()
        other = ~alike & grounds.notna().to_numpy()
        rivals = [grounds.index[same & other], grounds.index[~same & alike]]
        if all(len(ids) for ids in rivals):
            right, wrong = (ids[int(rng.integers(len(ids)))] for ids in rivals)
            triples.append((row["object_id"], row["image_id"], right, wrong))
    return pd.DataFrame(triples, columns=["object_id", "image_id", "right", "wrong"])


def find_ranks(ranking: Ranking, queries: Sequence[int], image_ids: Sequence[str]) -> np.ndarray:
    """Return the rank of an image in the ranking of a query, for several of both.

    Parameters
    ----------
    ranking
        Of the whole gallery (k = n).
    queries
        (t,) which query of the ranking.
    image_ids
        (t,) which image.

    Returns
    -------
    np.ndarray
        (t,) int64, from 1 on.

    Raises
    ------
    ValueError
        If an image is not ranked.
    """
    rows = ranking.index.rows_of(image_ids)
    is_it = ranking.rows[np.asarray(queries, int)] == rows[:, None]
    if not is_it.any(axis=1).all():
        missing = list(image_ids)[int((~is_it.any(axis=1)).argmax())]
        raise ValueError(f"image {missing!r} is not among the {ranking.rows.shape[1]} ranked")
    return is_it.argmax(axis=1) + 1


def drop_images(ranking: Ranking, dropped: np.ndarray) -> Ranking:
    """Return a ranking as it would be without some images, which differ from query to query.

    Parameters
    ----------
    ranking
        Of any kind; evidence of regions is left behind.
    dropped
        (q, n) bool, over the rows of the index.
    """
    gone = np.take_along_axis(np.pad(dropped, ((0, 0), (0, 1))), ranking.rows, axis=1)
    order = np.argsort(gone, axis=1, kind="stable")  # those that stay come first, as they were
    gone, rows, scores = (
        np.take_along_axis(array, order, axis=1) for array in (gone, ranking.rows, ranking.scores)
    )
    return Ranking(
        ranking.index,
        ranking.queries,
        np.where(gone, -1, rows),
        np.where(gone, -np.inf, scores).astype(np.float32),
        ranking.excluded,
    )
