"""All metrics of a ranking at once."""

from types import SimpleNamespace

import numpy as np
import pytest

from regionlab.metrics.ranking import evaluate, measure_ranking


def make_ranking(scores, exclude=None):
    """Rank a (q, n) score matrix completely, own images last in the gallery left out."""
    scores = np.array(scores, np.float32)
    excluded = np.full(len(scores), -1) if exclude is None else np.array(exclude)
    scores[excluded >= 0, excluded[excluded >= 0]] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, rows, 1)
    return SimpleNamespace(
        rows=np.where(ranked == -np.inf, -1, rows), scores=ranked, excluded=excluded
    )


SCORES = [[0.9, 0.5, 0.1, 0.0], [0.1, 0.2, 0.9, 0.8]]
RELEVANCE = np.array([[0, 1, 1, 0], [0, 0, 0, 1]])


def test_metrics_of_two_queries_by_hand():
    measured = measure_ranking(make_ranking(SCORES), RELEVANCE, cuts=(1, 2))
    assert measured["hit@1"].tolist() == [0, 0]
    assert measured["hit@2"].tolist() == [1, 1]
    assert measured["recall@2"].tolist() == [1 / 2, 1]
    assert measured["mAP"] == pytest.approx([(1 / 2 + 2 / 3) / 2, 1 / 2])
    assert measured["precision@5"] == pytest.approx([2 / 5, 1 / 5])
    assert measured["top1_similarity"] == pytest.approx([0.9, 0.9])


def test_own_image_left_out_is_not_missed():
    measured = measure_ranking(make_ranking(SCORES, exclude=[1, -1]), RELEVANCE, cuts=(1,))
    assert measured["mAP"] == pytest.approx([1 / 2, 1 / 2])  # the first query: rank 2 of 3


def test_averages_come_with_interval_and_number_of_queries():
    relevance = np.array([[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    found = evaluate(make_ranking([*SCORES, SCORES[0]]), relevance, seed=0, resamples=100)
    assert found["mAP"]["value"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1 / 2) / 2)
    assert found["mAP"]["n"] == 2 and found["mAP"]["n_undefined"] == 1
    low, high = found["mAP"]["ci95"]
    assert 1 / 2 <= low <= found["mAP"]["value"] <= high <= 7 / 12


def test_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(0)
    ranking = make_ranking(rng.random((30, 20)))
    relevance = rng.random((30, 20)) < 0.2
    one, two = (evaluate(ranking, relevance, seed=5, resamples=100) for _ in range(2))
    assert one == two
