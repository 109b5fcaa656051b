"""How good is a ranking: retrieval metrics, one value a query.

Every metric takes a `JudgedRanking`, which `judging` makes of a search's result.
A query with no relevant image in the gallery has no value: NaN, never 0. Means,
intervals and comparisons over queries are in `bootstrap`, which leaves NaN out.

The papers call the share of queries with a relevant image among the first k
"Recall@K". Here that is `hit_at_k`; `recall_at_k` is the share of the relevant
images that were found. The two agree where each query has one relevant image.
"""

from typing import Literal

import numpy as np

from regionlab.judging import JudgedRanking


def hit_at_k(judged: JudgedRanking, k: int) -> np.ndarray:
    """Return 1 for each query with a relevant image among its first k, else 0.

    The papers' Recall@K (and trec_eval's success). Returns (q,) float, NaN where
    nothing is relevant.

    Raises
    ------
    ValueError
        If `k` is not a positive int, or goes beyond the end of a ranking that may
        go on: see `JudgedRanking.first`. So for every metric at k.
    """
    return _where_defined(judged, _count_hits(judged, k) > 0)


def recall_at_k(judged: JudgedRanking, k: int) -> np.ndarray:
    """Return the share of each query's relevant images that its first k hold.

    With more than k relevant images it cannot reach 1. Returns (q,) float in
    [0, 1], NaN where nothing is relevant. Raises as `hit_at_k` does.
    """
    return _where_defined(judged, _count_hits(judged, k) / np.maximum(judged.n_relevant, 1))


def precision_at_k(judged: JudgedRanking, k: int) -> np.ndarray:
    """Return the share of each query's first k images that are relevant.

    The divisor is k, even where fewer images are relevant or ranked. Returns (q,)
    float in [0, 1], NaN where nothing is relevant. Raises as `hit_at_k` does.
    """
    return _where_defined(judged, _count_hits(judged, k) / k)


def average_precision(
    judged: JudgedRanking, k: int | None = None, *, divisor: Literal["relevant", "min_rk"]
) -> np.ndarray:
    """Return each query's precision at its hits, summed and divided.

    AP = sum over ranks i of precision@i * [image i is relevant] / divisor. Its mean
    over queries is mAP. Grades do not count: any gain above 0 is relevant. Returns
    (q,) float in [0, 1], NaN where nothing is relevant.

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

    Raises
    ------
    ValueError
        If `divisor` is unknown, or as `hit_at_k` does.
    """
    k = judged.gains.shape[1] if k is None else k
    if divisor not in ("relevant", "min_rk"):
        raise ValueError(f"divisor {divisor!r} is unknown; choose 'relevant' or 'min_rk'")
    hits = judged.first(k) > 0
    most = judged.n_relevant if divisor == "relevant" else np.minimum(judged.n_relevant, k)
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return _where_defined(judged, (precisions * hits).sum(axis=1) / np.maximum(most, 1))


def ndcg_at_k(judged: JudgedRanking, k: int) -> np.ndarray:
    """Return each query's discounted gain over that of the best possible ranking.

    DCG@k = sum over ranks i = 1..k of gain_i / log2(i + 1), linear in the gain. The
    best possible DCG@k is over the first k of all the gallery's gains, so also of
    images that the ranking missed (Järvelin and Kekäläinen 2002, as trec_eval's
    ndcg_cut). Returns (q,) float in [0, 1], NaN where nothing is relevant. Raises
    as `hit_at_k` does.
    """
    gained, best = _discount(judged.first(k)), _discount(judged.ideal[:, :k])
    return _where_defined(judged, gained / np.where(best > 0, best, 1))


def top1_similarity(scores: np.ndarray) -> np.ndarray:
    """Return the score of each query's first image, (q,) float.

    `scores` is (q, r) similarities, best first. Where nothing was found it holds
    NaN or -inf, and the value is NaN.

    Raises
    ------
    ValueError
        If `scores` is not (q, r) with a column, or a score is above the one before
        it: distances, perhaps, or an unsorted ranking.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores has shape {scores.shape}; (q, r) with r of 1 or more is needed")
    rising = (scores[:, 1:] > scores[:, :-1]).any(axis=1)
    if rising.any():
        query = int(rising.argmax())
        raise ValueError(f"scores of query {query} are not best first: {scores[query, :5]} ...")
    return np.where(np.isfinite(scores[:, 0]), scores[:, 0], np.nan)


def _count_hits(judged: JudgedRanking, k: int) -> np.ndarray:
    return np.count_nonzero(judged.first(k), axis=1)


def _where_defined(judged: JudgedRanking, values: np.ndarray) -> np.ndarray:
    return np.where(judged.n_relevant > 0, values, np.nan)


def _discount(gains: np.ndarray) -> np.ndarray:
    return gains @ (1 / np.log2(np.arange(2, gains.shape[1] + 2)))
