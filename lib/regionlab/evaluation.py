"""How good a set of rankings is: every metric at once, each with its interval."""

from collections.abc import Sequence

import numpy as np

from regionlab.bootstrap import summarise
from regionlab.judging import judge_ranking
from regionlab.metrics import (
    average_precision,
    hit_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    top1_similarity,
)
from regionlab.search import Ranking

CUTS = (1, 3, 5, 10)


def measure_ranking(
    ranking: Ranking, relevance: np.ndarray, *, cuts: Sequence[int] = CUTS
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
    ranking: Ranking,
    relevance: np.ndarray,
    *,
    seed: int,
    cuts: Sequence[int] = CUTS,
    resamples: int = 2000,
) -> dict[str, dict]:
    """Average each metric over the queries, with a 95 % bootstrap interval.

    Parameters
    ----------
    ranking, relevance, cuts
        As for `measure_ranking`.
    seed
        Of the bootstrap.
    resamples
        How many times the queries are drawn anew.

    Returns
    -------
    dict
        Metric to `{"value", "ci95", "n"}`, see `bootstrap.summarise`.
    """
    measured = measure_ranking(ranking, relevance, cuts=cuts)
    return {
        name: summarise(values, seed=seed, n_resamples=resamples)
        for name, values in measured.items()
    }
