"""Ranking metrics (hit@k, recall@k, precision@k, mAP, nDCG), and which images are relevant."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Literal

import numpy as np

from regionlab.metrics.stats import mean_with_ci

if TYPE_CHECKING:
    import pandas as pd

    from regionlab.data.collection import Collection
    from regionlab.search.images import Ranking

CUTS = (1, 3, 5, 10)


@dataclass(frozen=True, eq=False)
class RankedGains:
    """Hold what each query found, and what there was to find.

    A gain says how relevant an image is: 0 not at all, more is better; bool or 0
    and 1 where relevance has no grades. An image with a gain above 0 is relevant.

    Parameters
    ----------
    gains
        (q, r) gains of the ranked images, best ranked first. The ranking may stop
        before the end of the gallery.
    ideal
        (q, m) gains of all relevant images in the gallery in any order, those
        beyond the end of the ranking too; zeros are ignored. Kept best first.
    """

    gains: np.ndarray
    ideal: np.ndarray

    def __post_init__(self) -> None:
        gains, ideal = _check_gains("gains", self.gains), _check_gains("ideal", self.ideal)
        if gains.shape[1] == 0:
            raise ValueError(f"gains has shape {gains.shape}; a ranking needs a column")
        _check_same_length("gains", gains, "ideal", ideal)
        ideal = _sort_best_first(ideal)
        _check_found_exists(_sort_best_first(gains), ideal)
        object.__setattr__(self, "gains", gains.astype(np.float64))
        object.__setattr__(self, "ideal", ideal)

    def first(self, k: int) -> np.ndarray:
        """Return the first `k` gains of each query, fewer where the ranking is shorter.

        A ranking that already holds all relevant images can only go on with misses, so there `k`
        may be larger than its length. ValueError if `k` is beyond the end of the ranking while
        relevant images are missing from it: they could be among the first k.
        """
        if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k must be a positive int, not {k!r}")
        r = self.gains.shape[1]
        missing = int(self.n_relevant.sum()) - np.count_nonzero(self.gains)
        if k > r and missing:
            raise ValueError(
                f"k={k} goes beyond the {r} ranked images while {missing} relevant ones "
                f"are missing from them; search at least {k} deep"
            )
        return self.gains[:, :k]

    @property
    def n_relevant(self) -> np.ndarray:
        """(q,) int, the number of relevant images in the gallery."""
        return np.count_nonzero(self.ideal, axis=1)


def judge_ranking(
    rows: np.ndarray, relevance: np.ndarray, *, exclude: np.ndarray | None
) -> RankedGains:
    """Look up how relevant the ranked gallery rows are.

    Parameters
    ----------
    rows
        (q, r) int, gallery rows best first. -1 fills up a ranking that found fewer
        than r images, and counts as a miss.
    relevance
        (q, n) bool or non-negative gains, of each gallery row for each query.
    exclude
        (q,) int, gallery row of the query's own image, which does not count as
        relevant and must have been left out of the ranking; -1 for a query that is
        not in the gallery. None when no query is.

    Raises
    ------
    ValueError
        If shapes do not agree, a row is not in [-1, n), is ranked twice for one
        query or is the query's own, or a gain is negative or not finite.
    """
    relevance = _check_gains("relevance", relevance)
    rows = _check_rows("rows", rows, ndim=2, n=relevance.shape[1])
    _check_same_length("rows", rows, "relevance", relevance)
    _check_ranked_once(rows)
    if exclude is not None:
        exclude = _check_rows("exclude", exclude, ndim=1, n=relevance.shape[1])
        _check_same_length("exclude", exclude, "relevance", relevance)
        relevance = _without_own(rows, relevance, exclude)
    # The last column, a gain of nothing, is what row -1 reads.
    padded = np.pad(relevance, ((0, 0), (0, 1)))
    return RankedGains(np.take_along_axis(padded, rows, axis=1), relevance)


def judge_hits(hits: np.ndarray, n_relevant: np.ndarray) -> RankedGains:
    """Judge a ranking without grades, given how many relevant images there are.

    `hits` is (q, r) bool, whether the ranked image is relevant, best ranked first; `n_relevant`
    (q,) int counts the relevant images in the gallery, beyond the end of the ranking too.
    """
    hits, n_relevant = _check_gains("hits", hits), np.asarray(n_relevant)
    if not np.isin(hits, (0, 1)).all():
        raise ValueError(f"hits hold {hits.max()}; give graded gains to RankedGains")
    if n_relevant.dtype.kind not in "iu" or n_relevant.shape != hits.shape[:1]:
        raise ValueError(f"n_relevant must be one int for each of {len(hits)} queries")
    if (n_relevant < 0).any():
        raise ValueError(f"n_relevant holds {n_relevant.min()}; a count is 0 or more")
    return RankedGains(hits, np.arange(n_relevant.max(initial=0)) < n_relevant[:, None])


def _check_gains(name: str, gains: np.ndarray) -> np.ndarray:
    gains = np.asarray(gains)
    if gains.ndim != 2 or gains.dtype.kind not in "buif":
        raise ValueError(f"{name} must be (q, n) bool or numbers, not {gains.dtype} {gains.shape}")
    bad = ~np.isfinite(gains) | (gains < 0)
    if bad.any():
        query, column = np.argwhere(bad)[0].tolist()
        raise ValueError(
            f"{name}[{query}, {column}] is {gains[query, column]}; a gain is 0 or more and finite"
        )
    return gains


def _check_rows(name: str, rows: np.ndarray, *, ndim: int, n: int) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.ndim != ndim or rows.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be int with {ndim} axes, not {rows.dtype} of shape {rows.shape}"
        )
    bad = rows[(rows < -1) | (rows >= n)]
    if bad.size:
        raise ValueError(f"{name} holds {bad[0]}; a gallery of {n} has rows 0 to {n - 1}, or -1")
    return rows.astype(np.intp)


def _check_same_length(name: str, array: np.ndarray, other_name: str, other: np.ndarray) -> None:
    if len(array) != len(other):
        raise ValueError(f"{name} has {len(array)} queries, {other_name} has {len(other)}")


def _check_ranked_once(rows: np.ndarray) -> None:
    ordered = np.sort(rows, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        query, column = np.argwhere(twice)[0].tolist()
        raise ValueError(f"query {query} ranks row {ordered[query, column]} more than once")


def _without_own(rows: np.ndarray, relevance: np.ndarray, exclude: np.ndarray) -> np.ndarray:
    """Return the relevance with each query's own image not relevant."""
    present = (rows == exclude[:, None]).any(axis=1) & (exclude >= 0)
    if present.any():
        query = int(present.argmax())
        raise ValueError(
            f"query {query} ranks its own image, row {exclude[query]}; leave it out of the search"
        )
    queries = np.flatnonzero(exclude >= 0)
    relevance = relevance.copy()
    relevance[queries, exclude[queries]] = 0
    return relevance


def _sort_best_first(gains: np.ndarray) -> np.ndarray:
    """Return (q, m) float64 gains in falling order, m the most that are above 0."""
    width = np.count_nonzero(gains, axis=1).max(initial=0)
    return np.sort(gains, axis=1)[:, ::-1][:, :width].astype(np.float64)


def _check_found_exists(found: np.ndarray, ideal: np.ndarray) -> None:
    """Check that the i-th best gain found is at most the i-th best there is."""
    missing = max(0, found.shape[1] - ideal.shape[1])
    there = np.pad(ideal, ((0, 0), (0, missing)))[:, : found.shape[1]]
    # Some slack, so that gains may be float32 and ideal float64.
    impossible = (found > there * (1 + 1e-6)).any(axis=1)
    if impossible.any():
        query = int(impossible.argmax())
        raise ValueError(
            f"query {query} found gains {found[query, :5]}, best first, "
            f"but its gallery's best are {ideal[query, :5]}"
        )


def hit_at_k(judged: RankedGains, k: int) -> np.ndarray:
    """Return 1 for each query with a relevant image among its first k, else 0, (q,) float.

    The papers' Recall@K (and trec_eval's success). NaN where nothing is relevant. As every
    metric at k, raises ValueError if `k` goes beyond the end of a ranking: see `RankedGains.first`.
    """
    return _where_defined(judged, _count_hits(judged, k) > 0)


def recall_at_k(judged: RankedGains, k: int) -> np.ndarray:
    """Return the share of each query's relevant images that its first k hold, (q,) float.

    With more than k relevant images it cannot reach 1. NaN where nothing is relevant.
    """
    return _where_defined(judged, _count_hits(judged, k) / np.maximum(judged.n_relevant, 1))


def precision_at_k(judged: RankedGains, k: int) -> np.ndarray:
    """Return the share of each query's first k images that are relevant, (q,) float.

    The divisor is k, even where fewer images are relevant or ranked. NaN where nothing is.
    """
    return _where_defined(judged, _count_hits(judged, k) / k)


def average_precision(
    judged: RankedGains, k: int | None = None, *, divisor: Literal["relevant", "min_rk"]
) -> np.ndarray:
    """Return each query's precision at its hits, summed and divided, (q,) float in [0, 1].

    AP = sum over ranks i of precision@i * [image i is relevant] / divisor. Its mean
    over queries is mAP. Any gain above 0 is relevant; NaN where nothing is.

    Parameters
    ----------
    judged
        What each query found.
    k
        Leave out the hits after rank k. None takes the ranking as it is: relevant
        images beyond its end count as never found.
    divisor
        "relevant" is R, all the query's relevant images (trec_eval's map and
        map_cut): with R > k it cannot reach 1. "min_rk" is min(R, k) (CIRCO's
        mAP@K), with k the length of the ranking if None.
    """
    k = judged.gains.shape[1] if k is None else k
    if divisor not in ("relevant", "min_rk"):
        raise ValueError(f"divisor {divisor!r} is unknown; choose 'relevant' or 'min_rk'")
    hits = judged.first(k) > 0
    most = judged.n_relevant if divisor == "relevant" else np.minimum(judged.n_relevant, k)
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return _where_defined(judged, (precisions * hits).sum(axis=1) / np.maximum(most, 1))


def ndcg_at_k(judged: RankedGains, k: int) -> np.ndarray:
    """Return each query's discounted gain over that of the best possible ranking, (q,) in [0, 1].

    DCG@k = sum over ranks i = 1..k of gain_i / log2(i + 1), linear in the gain. The best possible
    DCG@k is over the first k of all the gallery's gains, so also of images that the ranking
    missed (Järvelin and Kekäläinen 2002, as trec_eval's ndcg_cut). NaN where nothing is relevant.
    """
    gained, best = _discount(judged.first(k)), _discount(judged.ideal[:, :k])
    return _where_defined(judged, gained / np.where(best > 0, best, 1))


def top1_similarity(scores: np.ndarray) -> np.ndarray:
    """Return the score of each query's first image, (q,) float, from (q, r) scores, best first.

    NaN where nothing was found, which NaN or -inf says. ValueError if a score is above the one
    before it: distances, perhaps, or an unsorted ranking.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores has shape {scores.shape}; (q, r) with r of 1 or more is needed")
    rising = (scores[:, 1:] > scores[:, :-1]).any(axis=1)
    if rising.any():
        query = int(rising.argmax())
        raise ValueError(f"scores of query {query} are not best first: {scores[query, :5]} ...")
    return np.where(np.isfinite(scores[:, 0]), scores[:, 0], np.nan)


def _count_hits(judged: RankedGains, k: int) -> np.ndarray:
    return np.count_nonzero(judged.first(k), axis=1)


def _where_defined(judged: RankedGains, values: np.ndarray) -> np.ndarray:
    return np.where(judged.n_relevant > 0, values, np.nan)


def _discount(gains: np.ndarray) -> np.ndarray:
    return gains @ (1 / np.log2(np.arange(2, gains.shape[1] + 2)))


def measure_ranking(
    ranking: "Ranking", relevance: np.ndarray, *, cuts: Sequence[int] = CUTS
) -> dict[str, np.ndarray]:
    """Measure each query of a ranking by each metric.

    Parameters
    ----------
    ranking
        Of the whole gallery (k = n), so that average precision sees every relevant image.
    relevance
        (q, n) bool or gains, columns in the order of the index.
    cuts
        The k of hit@k (what the papers call Recall@k) and recall@k.

    Returns
    -------
    dict
        Metric to (q,) float: "mAP" (divided by the number of relevant images), "hit@k",
        "recall@k", "precision@1", "precision@5", "ndcg@5" (linear gain), "top1_similarity".
        NaN where a query has no relevant image.
    """
    judged = judge_ranking(ranking.rows, relevance, exclude=ranking.excluded)
    return {
        "mAP": average_precision(judged, divisor="relevant"),
        **{f"hit@{k}": hit_at_k(judged, k) for k in cuts},
        **{f"recall@{k}": recall_at_k(judged, k) for k in cuts},
        **{f"precision@{k}": precision_at_k(judged, k) for k in (1, 5)},
        "ndcg@5": ndcg_at_k(judged, 5),
        "top1_similarity": top1_similarity(ranking.scores),
    }


def evaluate(
    ranking: "Ranking",
    relevance: np.ndarray,
    *,
    seed: int,
    cuts: Sequence[int] = CUTS,
    resamples: int = 2000,
) -> dict[str, dict]:
    """Average each metric of `measure_ranking` over the queries, with a 95 % bootstrap interval.

    Returns metric to `{"value", "ci95", "n"}`, see `stats.mean_with_ci`; `seed` and `resamples`
    are of the bootstrap.
    """
    measured = measure_ranking(ranking, relevance, cuts=cuts)
    return {
        name: mean_with_ci(values, seed=seed, n_resamples=resamples)
        for name, values in measured.items()
    }


# Relevance: which gallery images answer a query, (q, n) bool


def is_own_image(query_ids: Sequence[str], gallery_ids: Sequence[str]) -> np.ndarray:
    """Tell which gallery image each query belongs to, (q, n) bool: one right answer.

    `query_ids` (q,) are the images that the queries are about, such as a caption's own; a row
    without True is a query whose image is not in the gallery.
    """
    return np.asarray(query_ids, object)[:, None] == np.asarray(gallery_ids, object)[None, :]


def count_shared_kinds(
    collection: "Collection",
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
    collection: "Collection",
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


def _count_kinds(collection: "Collection", by: Sequence[str]) -> "pd.DataFrame":
    """How many objects of each kind (columns) each image (index) holds."""
    import pandas as pd  # late: metrics of rankings alone do not need it

    kinds = _name_kinds(collection, by)
    images = collection.objects.set_index("object_id")["image_id"].loc[kinds.index]
    return pd.crosstab(images.to_numpy(), kinds.to_numpy())


def _name_kinds(collection: "Collection", by: Sequence[str]) -> "pd.Series":
    """Return the kind of each object, a number by object id, without crowds and the kindless."""
    objects = collection.objects
    if missing := [column for column in by if column not in objects]:
        raise ValueError(
            f"no column {missing[0]!r} in the objects of {collection!r}; "
            f"there are: {', '.join(objects.columns)}"
        )
    objects = objects[~objects["iscrowd"]].set_index("object_id")
    return objects.dropna(subset=list(by)).groupby(list(by)).ngroup()
