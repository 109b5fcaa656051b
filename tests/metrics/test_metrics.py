"""Metrics against fractions worked by hand, a slow oracle, and trec_eval."""

import math

import numpy as np
import pytest
import pytrec_eval

from regionlab.metrics.ranking import (
    RankedGains,
    average_precision,
    hit_at_k,
    judge_hits,
    judge_ranking,
    ndcg_at_k,
    precision_at_k,
    recall_at_k,
    top1_similarity,
)

# A hit at ranks 1, 3 and 6, of 4 relevant images: one is missing from the ranking.
HITS = np.array([[1, 0, 1, 0, 0, 1]], dtype=bool)
AT_K = (hit_at_k, recall_at_k, precision_at_k, ndcg_at_k)


@pytest.fixture
def judged():
    return judge_hits(HITS, np.array([4]))


def make_world(seed, *, q=40, n=25, top=3):
    """Return random full rankings (q, n) and graded relevance (q, n), some rows empty."""
    rng = np.random.default_rng(seed)
    relevance = rng.integers(1, top + 1, (q, n)) * (rng.random((q, n)) < rng.random((q, 1)))
    relevance[::10] = 0
    return rng.permuted(np.tile(np.arange(n), (q, 1)), axis=1), relevance


# Worked by hand


def test_hit_is_1_from_the_first_relevant_image_on():
    judged = judge_hits(np.array([[0, 1, 0]]), np.array([2]))
    assert [hit_at_k(judged, k)[0] for k in (1, 2, 3)] == [0, 1, 1]


def test_recall_divides_by_all_relevant_images(judged):
    assert recall_at_k(judged, 3) == 2 / 4


def test_hit_and_recall_agree_where_one_image_is_relevant():
    judged = judge_hits(np.eye(4, 5, dtype=bool), np.ones(4, dtype=int))
    np.testing.assert_array_equal(hit_at_k(judged, 2), recall_at_k(judged, 2))


def test_precision_divides_by_k_even_where_fewer_are_relevant():
    judged = judge_hits(np.array([[1, 0, 0, 0, 0]]), np.array([1]))
    assert precision_at_k(judged, 5) == 1 / 5


def test_average_precision_divides_by_all_relevant_images(judged):
    expected = (1 / 1 + 2 / 3 + 3 / 6) / 4
    assert average_precision(judged, divisor="relevant") == pytest.approx(expected)


def test_average_precision_at_k_leaves_out_later_hits(judged):
    expected = (1 / 1 + 2 / 3) / 4
    assert average_precision(judged, 5, divisor="relevant") == pytest.approx(expected)


def test_average_precision_divides_by_k_where_more_are_relevant(judged):
    expected = (1 / 1 + 2 / 3) / 3
    assert average_precision(judged, 3, divisor="min_rk") == pytest.approx(expected)


def test_average_precision_min_rk_divides_by_relevant_where_k_is_larger(judged):
    expected = (1 / 1 + 2 / 3) / 4
    assert average_precision(judged, 5, divisor="min_rk") == pytest.approx(expected)


def test_ndcg_is_linear_in_the_gain_and_ideal_over_the_same_k():
    judged = RankedGains(np.array([[1.0, 0, 3]]), np.array([[3, 2, 1]]))
    gained = 1 / math.log2(2) + 3 / math.log2(4)
    best = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at_k(judged, 3) == pytest.approx(gained / best)
    assert ndcg_at_k(judged, 1) == pytest.approx(1 / 3)


def test_the_perfect_ranking_scores_1():
    gains = np.array([[3, 2, 1, 0]])
    judged = RankedGains(gains, gains)
    assert ndcg_at_k(judged, 4) == average_precision(judged, divisor="relevant") == 1


def test_top1_similarity_is_the_first_score():
    scores = np.array([[0.9, 0.2], [0.5, 0.5], [0.3, np.nan], [np.nan, np.nan], [-np.inf, -np.inf]])
    np.testing.assert_array_equal(top1_similarity(scores), [0.9, 0.5, 0.3, np.nan, np.nan])


# Slow oracle and trec_eval


def oracle(gains, all_gains, k):
    """Return the metrics of one query by their definitions, one rank at a time."""
    n_relevant = sum(gain > 0 for gain in all_gains)
    if n_relevant == 0:
        return [math.nan] * 6
    found, precisions, dcg, best = 0, 0.0, 0.0, 0.0
    for rank, gain in enumerate(gains[:k], start=1):
        found += gain > 0
        precisions += found / rank if gain > 0 else 0
        dcg += gain / math.log2(rank + 1)
    for rank, gain in enumerate(sorted(all_gains, reverse=True)[:k], start=1):
        best += gain / math.log2(rank + 1)
    return [
        float(found > 0),
        found / n_relevant,
        found / k,
        dcg / best,
        precisions / n_relevant,
        precisions / min(n_relevant, k),
    ]


def measure(judged, k):
    """Return (q, 6) metrics in the order of `oracle`."""
    columns = [metric(judged, k) for metric in AT_K]
    columns += [average_precision(judged, k, divisor=d) for d in ("relevant", "min_rk")]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("depth", [25, 10])  # the full ranking, and one cut short
@pytest.mark.parametrize("top", [1, 3])  # binary and graded
@pytest.mark.parametrize("k", [1, 3, 10])
def test_metrics_equal_the_slow_oracle(k, top, depth):
    rows, relevance = make_world(seed=k, top=top)
    judged = judge_ranking(rows[:, :depth], relevance, exclude=None)
    expected = [
        oracle(rel[row].tolist(), rel.tolist(), k) for row, rel in zip(rows, relevance, strict=True)
    ]
    np.testing.assert_allclose(measure(judged, k), expected, rtol=1e-12)


def run_trec_eval(rows, relevance, measures):
    qrel = {
        str(i): {f"d{j}": int(gain) for j, gain in enumerate(gains)}
        for i, gains in enumerate(relevance)
    }
    run = {
        str(i): {f"d{j}": float(-rank) for rank, j in enumerate(row)} for i, row in enumerate(rows)
    }
    results = pytrec_eval.RelevanceEvaluator(qrel, measures).evaluate(run)
    return [results[str(i)] for i in range(len(rows))]


@pytest.mark.parametrize("depth", [25, 10])
@pytest.mark.parametrize("top", [1, 3])
@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_metrics_agree_with_trec_eval(k, top, depth):
    rows, relevance = make_world(seed=100 + k, top=top)
    rows = rows[:, :depth]
    judged = judge_ranking(rows, relevance, exclude=None)
    ours = {
        "map": average_precision(judged, divisor="relevant"),
        f"map_cut_{k}": average_precision(judged, k, divisor="relevant"),
        f"success_{k}": hit_at_k(judged, k),
        f"recall_{k}": recall_at_k(judged, k),
        f"P_{k}": precision_at_k(judged, k),
        f"ndcg_cut_{k}": ndcg_at_k(judged, k),
    }
    names = {"map"} | {f"{name}.{k}" for name in ("map_cut", "success", "recall", "P", "ndcg_cut")}
    theirs = run_trec_eval(rows, relevance, names)
    defined = judged.n_relevant > 0
    assert 0 < defined.sum() < len(rows)
    for name, values in ours.items():
        expected = np.array([result[name] for result in theirs])
        np.testing.assert_allclose(values[defined], expected[defined], atol=1e-6, err_msg=name)


def test_a_query_without_relevant_images_is_undefined_not_0():
    judged = judge_hits(np.array([[0, 0], [1, 0]]), np.array([0, 1]))
    np.testing.assert_array_equal(np.isnan(measure(judged, 2)), [[True] * 6, [False] * 6])


def test_relevant_images_beyond_the_cut_lower_recall_and_ap_but_not_hit_and_precision():
    few, many = (judge_hits(HITS, np.array([r])) for r in (3, 30))
    change = measure(many, 3)[0] / measure(few, 3)[0]
    assert change[0] == change[2] == 1
    np.testing.assert_allclose(change[[1, 4]], 3 / 30)
    assert change[3] == change[5] == 1  # the best first 3, and min(R, 3), are as before


def test_a_cut_ranking_measures_like_the_full_one():
    rows, relevance = make_world(seed=5)
    full = judge_ranking(rows, relevance, exclude=None)
    cut = judge_ranking(rows[:, :10], relevance, exclude=None)
    np.testing.assert_array_equal(measure(cut, 10), measure(full, 10))


def test_hits_and_their_number_measure_like_the_relevance_matrix():
    rows, relevance = make_world(seed=6, top=1)
    hits = np.take_along_axis(relevance, rows[:, :10], axis=1)
    from_hits = judge_hits(hits.astype(bool), relevance.sum(axis=1))
    from_rows = judge_ranking(rows[:, :10], relevance, exclude=None)
    np.testing.assert_array_equal(measure(from_hits, 4), measure(from_rows, 4))


# The own image, padding, and cut-offs beyond the ranking


def test_the_excluded_image_does_not_count_as_relevant():
    relevance = np.array([[1, 1, 0], [1, 1, 0]])
    judged = judge_ranking(np.array([[1, 2], [0, 1]]), relevance, exclude=np.array([0, -1]))
    np.testing.assert_array_equal(judged.n_relevant, [1, 2])
    np.testing.assert_array_equal(recall_at_k(judged, 1), [1, 1 / 2])
    np.testing.assert_array_equal(relevance, [[1, 1, 0], [1, 1, 0]])


def test_exclude_minus_1_excludes_nothing_even_beside_padding():
    judged = judge_ranking(np.array([[2, -1]]), np.array([[0, 0, 1]]), exclude=np.array([-1]))
    assert hit_at_k(judged, 1) == recall_at_k(judged, 1) == 1


def test_padding_counts_as_a_miss():
    judged = judge_ranking(np.array([[2, -1, -1]]), np.array([[0, 1, 1]]), exclude=None)
    np.testing.assert_array_equal(judged.gains, [[1, 0, 0]])
    assert precision_at_k(judged, 3) == 1 / 3
    assert recall_at_k(judged, 3) == 1 / 2


def test_k_may_exceed_the_gallery_when_all_relevant_images_are_ranked():
    judged = judge_ranking(np.array([[0, 1, 2]]), np.array([[0, 1, 0]]), exclude=None)
    assert hit_at_k(judged, 10) == recall_at_k(judged, 10) == 1
    assert precision_at_k(judged, 10) == 1 / 10
    assert ndcg_at_k(judged, 10) == pytest.approx(1 / math.log2(3))
    assert average_precision(judged, 10, divisor="min_rk") == 1 / 2


@pytest.mark.parametrize("metric", AT_K)
def test_k_beyond_a_ranking_that_misses_relevant_images_is_refused(metric, judged):
    with pytest.raises(ValueError, match="k=7 goes beyond the 6 ranked images while 1 relevant"):
        metric(judged, 7)


# Broken input


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3"])
@pytest.mark.parametrize("metric", AT_K)
def test_k_that_is_not_a_positive_int_is_refused(metric, k, judged):
    with pytest.raises(ValueError, match=f"k must be a positive int, not {k!r}"):
        metric(judged, k)


def test_an_unknown_divisor_is_refused(judged):
    with pytest.raises(ValueError, match="'k' is unknown; choose 'relevant' or 'min_rk'"):
        average_precision(judged, divisor="k")


@pytest.mark.parametrize(
    ("gains", "ideal", "message"),
    [
        ([[-1.0]], [[1]], r"gains\[0, 0\] is -1"),
        ([[0, 1]], [[np.nan]], r"ideal\[0, 0\] is nan"),
        ([[0, np.inf]], [[1]], r"gains\[0, 1\] is inf"),
        ([0, 1], [[1]], r"gains must be \(q, n\)"),
        ([["a"]], [[1]], "bool or numbers"),
        (np.empty((2, 0)), [[1], [1]], "needs a column"),
        ([[1]], [[1], [1]], "gains has 1 queries, ideal has 2"),
        ([[0, 2]], [[1]], "query 0 found gains"),
        ([[1], [1]], [[1], [0]], "query 1 found gains"),
        ([[2, 2]], [[2, 1, 1]], "query 0 found gains"),
    ],
)
def test_impossible_gains_are_refused(gains, ideal, message):
    with pytest.raises(ValueError, match=message):
        RankedGains(np.array(gains), np.array(ideal))


@pytest.mark.parametrize(
    ("hits", "n_relevant", "message"),
    [
        ([[2]], [2], "hits hold 2"),
        ([[1]], [-1], "n_relevant holds -1"),
        ([[1]], [1.0], "one int for each of 1 queries"),
        ([[1]], [1, 1], "one int for each of 1 queries"),
        ([[1, 1]], [1], "query 0 found gains"),
    ],
)
def test_impossible_hits_are_refused(hits, n_relevant, message):
    with pytest.raises(ValueError, match=message):
        judge_hits(np.array(hits), np.array(n_relevant))


@pytest.mark.parametrize(
    ("rows", "exclude", "message"),
    [
        ([[0, 3]], None, "rows holds 3; a gallery of 3 has rows 0 to 2"),
        ([[0, -2]], None, "rows holds -2"),
        ([[0.0]], None, "rows must be int"),
        ([0, 1], None, "with 2 axes"),
        ([[0], [1]], None, "rows has 2 queries, relevance has 1"),
        ([[1, 0, 1]], None, "query 0 ranks row 1 more than once"),
        ([[1, 0]], [0], "query 0 ranks its own image, row 0"),
        ([[1]], [3], "exclude holds 3"),
        ([[1]], [0, 0], "exclude has 2 queries"),
    ],
)
def test_impossible_rows_are_refused(rows, exclude, message):
    exclude = None if exclude is None else np.array(exclude)
    with pytest.raises(ValueError, match=message):
        judge_ranking(np.array(rows), np.array([[True, True, False]]), exclude=exclude)


def test_a_gallery_given_as_float32_and_gains_as_float64_agree():
    judged = RankedGains(np.array([[0.1]], dtype=np.float32), np.array([[0.1]]))
    assert ndcg_at_k(judged, 1) == pytest.approx(1)


@pytest.mark.parametrize("scores", [[[0.1, 0.9]], [0.9], [[]]])
def test_scores_that_are_not_best_first_are_refused(scores):
    with pytest.raises(ValueError, match=r"query 0 are not best first|\(q, r\)"):
        top1_similarity(np.array(scores))


def test_a_score_above_the_one_before_it_is_found_wherever_it_is():
    scores = np.array([[0.9, 0.5, 0.5, 0.1], [0.9, 0.8, 0.1, 0.2]])
    with pytest.raises(ValueError, match="scores of query 1 are not best first"):
        top1_similarity(scores)


def test_equal_scores_side_by_side_are_in_order():
    assert top1_similarity(np.array([[0.5, 0.5, 0.2], [0.7, 0.1, 0.1]])).tolist() == [0.5, 0.7]
