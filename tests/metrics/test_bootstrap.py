"""Intervals that cover, and p-values that mean what they say."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from regionlab.metrics import stats as bootstrap
from regionlab.metrics.stats import compare_apart, compare_paired, mean_with_ci, summarise_parts


def enumerate_p(differences):
    """Return the two-sided sign-flip p-value over all 2**n flips."""
    flips = np.array(list(itertools.product([1, -1], repeat=len(differences))))
    sums, observed = flips @ differences, np.sum(differences)
    right, left = np.mean(sums >= observed - 1e-9), np.mean(sums <= observed + 1e-9)
    return min(1, 2 * min(left, right))


def test_summary_leaves_out_undefined_queries_and_counts_them():
    summary = mean_with_ci(np.array([1, np.nan, 0, 1, np.nan]), seed=0)
    assert summary["value"] == 2 / 3
    assert (summary["n"], summary["n_undefined"]) == (3, 2)


def test_summary_of_defined_queries_has_no_n_undefined():
    assert set(mean_with_ci(np.array([0.0, 1.0]), seed=0)) == {"value", "ci95", "n"}


def test_results_are_plain_json():
    values = np.array([0, 1, 1, np.nan])
    result = [mean_with_ci(values, seed=0), compare_paired(values, values[::-1], seed=0)]
    assert json.loads(json.dumps(result)) == result


def test_interval_equals_the_normal_one_for_many_queries():
    values = np.random.default_rng(0).exponential(size=2000)
    half = 1.96 * values.std() / np.sqrt(2000)
    low, high = mean_with_ci(values, seed=1, n_resamples=4000)["ci95"]
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        low, high = mean_with_ci(rng.beta(2, 1, size=80), seed=rng, n_resamples=400)["ci95"]
        covered += low <= 2 / 3 <= high
    assert 0.89 <= covered / 200 <= 0.985


def test_same_seed_same_result_whatever_the_batch(monkeypatch):
    a, b = np.random.default_rng(3).random((2, 50))
    expected = mean_with_ci(a, seed=7), compare_paired(a, b, seed=7)
    monkeypatch.setattr(bootstrap, "_CELLS_A_BATCH", 333)
    assert (mean_with_ci(a, seed=7), compare_paired(a, b, seed=7)) == expected
    assert mean_with_ci(a, seed=8)["ci95"] != expected[0]["ci95"]


def test_difference_is_a_minus_b_over_queries_defined_in_both():
    a, b = np.array([1, np.nan, 1, 0.5]), np.array([0, 0, np.nan, 0.25])
    result = compare_paired(a, b, seed=0)
    assert result["value"] == (1 + 0.25) / 2
    assert (result["n"], result["n_undefined"]) == (2, 2)


def test_interval_of_the_difference_is_paired():
    rng = np.random.default_rng(4)
    b = rng.normal(size=200)
    low, high = compare_paired(b + 0.1 + rng.normal(0, 0.01, 200), b, seed=0)["ci95"]
    assert 0.095 < low < 0.1 < high < 0.105  # 30 times narrower than that of either


def test_p_value_of_few_queries_is_exact():
    a = np.array([0.3, 0.1, -0.2, 0.5, 0.4, 0.0, 0.25, 0.1])
    p = compare_paired(a, np.zeros(8), seed=0)["p_value"]
    assert p == pytest.approx(enumerate_p(a))


def test_p_value_of_more_queries_is_near_the_exact_one():
    a = np.random.default_rng(5).normal(0.3, 1, size=15)
    p = [compare_paired(a, np.zeros(15), seed=seed)["p_value"] for seed in range(20)]
    assert np.mean(p) == pytest.approx(enumerate_p(a), abs=0.012)


def test_p_value_is_the_same_from_either_side():
    a, b = np.random.default_rng(6).random((2, 10))
    forth, back = compare_paired(a, b, seed=0), compare_paired(b, a, seed=0)
    assert forth["p_value"] == pytest.approx(back["p_value"])
    assert forth["value"] == -back["value"]


def test_p_values_of_like_methods_are_about_uniform():
    rng = np.random.default_rng(8)
    pairs = rng.random((300, 2, 25))
    p = np.array([compare_paired(a, b, seed=rng, n_resamples=200)["p_value"] for a, b in pairs])
    for level, slack in ((0.05, 0.04), (0.25, 0.08), (0.5, 0.09), (0.75, 0.08)):
        assert np.mean(p <= level) == pytest.approx(level, abs=slack)


def test_p_value_of_a_clear_difference_is_small_but_never_0():
    rng = np.random.default_rng(9)
    p = compare_paired(rng.normal(1, 1, 100), rng.normal(0, 1, 100), seed=0)["p_value"]
    assert p == pytest.approx(2 / 2001)


def test_p_value_of_equal_methods_is_1():
    a = np.random.default_rng(10).random(30)
    assert compare_paired(a, a, seed=0) == {"value": 0, "ci95": [0, 0], "p_value": 1, "n": 30}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "0 queries have a value"),
        ([np.nan, 1.0], "1 queries have a value"),
        ([1.0, np.inf], "without infinity"),
        ([[1.0, 0.0]], r"must be \(q,\)"),
    ],
)
def test_values_without_an_interval_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mean_with_ci(np.array(values), seed=0)
    with pytest.raises(ValueError, match=message):
        compare_paired(np.array(values), np.array(values), seed=0)


def test_methods_on_different_queries_are_refused():
    with pytest.raises(ValueError, match="a has 3 queries, b has 2"):
        compare_paired(np.zeros(3), np.zeros(2), seed=0)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="n_resamples=10 "):
        mean_with_ci(np.zeros(3), seed=0, n_resamples=10)


def test_import_loads_nothing_heavy():
    code = (
        "import sys, regionlab.metrics.ranking, regionlab.metrics.stats;"
        "print({'scipy', 'torch', 'pandas', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- exact at the ends, groups, and what p can say --------------------------------------


def test_interval_of_a_share_of_all_or_none_is_the_exact_one():
    from scipy.stats import binomtest

    for values in (np.ones(30), np.zeros(30)):
        exact = binomtest(int(values.sum()), 30).proportion_ci(0.95, method="exact")
        assert mean_with_ci(values, seed=0)["ci95"] == pytest.approx(list(exact))
    assert mean_with_ci(np.ones(1000), seed=0)["ci95"] == pytest.approx([0.9963, 1], abs=5e-5)


def test_other_shares_keep_the_bootstrap_interval():
    values = np.r_[np.ones(29), 0]
    low, high = mean_with_ci(values, seed=0)["ci95"]
    assert high == 1 and low > 0.85


def test_interval_is_of_percentiles_and_so_leans_with_the_values():
    values = np.random.default_rng(1).lognormal(0, 1.5, size=25)  # a long tail to the right
    rng = np.random.default_rng(2)
    means = rng.choice(values, (20_000, 25)).mean(axis=1)
    low, high = mean_with_ci(values, seed=0, n_resamples=20_000)["ci95"]
    assert [low, high] == pytest.approx(np.percentile(means, [2.5, 97.5]), rel=0.03)
    assert high - values.mean() > 1.1 * (values.mean() - low)  # the basic one leans to the left


def draw_groups_slowly(values, groups, seed, n_resamples):
    """Return bootstrap means over whole groups, by drawing labels and joining their values."""
    rng, names = np.random.default_rng(seed), sorted(set(groups))
    means = []
    for _ in range(n_resamples):
        drawn = rng.choice(names, len(names))
        means.append(np.concatenate([values[groups == name] for name in drawn]).mean())
    return np.percentile(means, [2.5, 97.5])


def make_groups(rng, number, within):
    """Return values whose groups differ by 1 and vary by `within`, and the groups' labels."""
    groups = np.repeat(np.arange(number), rng.integers(2, 8, size=number))
    return rng.normal(0, 1, number)[groups] + rng.normal(0, within, len(groups)), groups


def test_groups_are_drawn_whole():
    values, groups = make_groups(np.random.default_rng(3), 40, 0.5)
    found = mean_with_ci(values, seed=0, groups=groups, n_resamples=4000)
    slowly = draw_groups_slowly(values, groups, 1, 4000)
    assert found["value"] == values.mean() and found["n"] == len(values)
    assert found["ci95"] == pytest.approx(slowly, abs=0.04)
    alone = np.ptp(mean_with_ci(values, seed=0, n_resamples=4000)["ci95"])
    assert np.ptp(found["ci95"]) > 1.5 * alone


def test_groups_of_one_query_draw_queries():
    values = np.random.default_rng(4).random(60)
    apart = mean_with_ci(values, seed=0, groups=np.arange(60), n_resamples=4000)["ci95"]
    assert apart == pytest.approx(mean_with_ci(values, seed=1, n_resamples=4000)["ci95"], abs=0.01)


def test_interval_over_groups_covers_the_truth_where_that_over_queries_does_not():
    rng, covered = np.random.default_rng(5), {"groups": 0, "queries": 0}
    for _ in range(150):
        values, groups = make_groups(rng, 60, 0.3)
        for name, labels in (("groups", groups), ("queries", None)):
            draws = {"seed": rng, "groups": labels, "n_resamples": 400}
            low, high = mean_with_ci(values, **draws)["ci95"]
            covered[name] += low <= 0 <= high
    assert covered["groups"] / 150 > 0.89 and covered["queries"] / 150 < 0.75


def test_labels_of_groups_may_be_anything_and_stand_anywhere():
    values = np.random.default_rng(6).random(12)
    numbers = np.arange(12) % 4
    names = [("a", int(n)) for n in numbers]
    as_numbers, as_names = (mean_with_ci(values, seed=0, groups=g) for g in (numbers, names))
    assert as_numbers == as_names


def test_undefined_queries_leave_their_group():
    values, groups = np.array([1, np.nan, 0, 1, 0.5]), [0, 0, 1, 1, 2]
    with_gap = mean_with_ci(values, seed=0, groups=groups)
    assert with_gap["n_undefined"] == 1
    assert (
        with_gap["ci95"] == mean_with_ci(values[[0, 2, 3, 4]], seed=0, groups=[0, 1, 1, 2])["ci95"]
    )


def test_difference_over_groups_draws_and_flips_whole_groups():
    rng = np.random.default_rng(7)
    a, groups = make_groups(rng, 8, 0.1)
    found = compare_paired(a + 0.8, np.zeros(len(a)), seed=0, groups=groups)
    assert found["ci95"] == pytest.approx(draw_groups_slowly(a + 0.8, groups, 1, 4000), abs=0.15)
    sums = np.bincount(groups, a + 0.8)
    assert found["p_value"] == pytest.approx(enumerate_p(sums))


def test_all_right_in_few_groups_is_less_sure_than_in_many_queries():
    alone, together = (
        mean_with_ci(np.ones(60), seed=0, groups=g) for g in (None, np.arange(60) % 6)
    )
    assert together["ci95"][0] == pytest.approx(0.025 ** (1 / 6))
    assert alone["ci95"][0] == pytest.approx(0.025 ** (1 / 60))


@pytest.mark.parametrize(
    ("groups", "message"),
    [([0, 0, 0], "1 groups have a value"), ([0, 1], "3 queries have 2 groups")],
)
def test_groups_that_give_no_interval_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        mean_with_ci(np.array([0, 1, 0.5]), seed=0, groups=groups)


def test_p_value_says_where_it_is_only_bounded_by_the_number_of_flips():
    rng = np.random.default_rng(9)
    clear, unclear = rng.normal(1, 1, (2, 100)), rng.normal(0, 1, (2, 100))
    assert compare_paired(clear[0], np.zeros(100), seed=0)["p_is_floor"] is True
    assert "p_is_floor" not in compare_paired(*unclear, seed=0)


def test_p_value_of_few_queries_is_exact_and_never_bounded():
    a = np.arange(1.0, 9.0)  # all 256 flips are tried, two are as extreme
    found = compare_paired(a, np.zeros(8), seed=0)
    assert found["p_value"] == pytest.approx(2 / 256) and "p_is_floor" not in found


def test_difference_between_other_queries_draws_each_side_by_itself():
    rng = np.random.default_rng(10)
    a, b = np.r_[rng.normal(1, 1, 400), np.nan], rng.normal(0, 2, 300)
    found = compare_apart(a, b, seed=0, n_resamples=4000)
    half = 1.96 * np.hypot(np.nanstd(a) / 20, b.std() / np.sqrt(300))
    assert found["value"] == pytest.approx(np.nanmean(a) - b.mean())
    assert found["ci95"] == pytest.approx(found["value"] + half * np.array([-1, 1]), abs=0.1 * half)
    assert found["n"] == 700
    with pytest.raises(ValueError, match="1 queries have a value"):
        compare_apart(a, np.array([1.0]), seed=0)


def test_parts_are_summarised_by_themselves():
    values = np.array([1, 0, 1, 0.5, np.nan, np.nan])
    parts = np.array(["b", "a", "b", "c", "c", "d"])
    found = summarise_parts(values, parts, seed=0)
    assert list(found) == ["a", "b", "c"]
    assert found["b"] == mean_with_ci(np.ones(2), seed=0)
    assert found["a"] == {"value": 0, "n": 1} and found["c"] == {"value": 0.5, "n": 1}


def test_parts_draw_their_groups():
    values, parts, groups = np.array([1, 0, 1, 0.0]), np.array(list("aaab")), [7, 7, 8, 8]
    found = summarise_parts(values, parts, seed=0, groups=groups)
    assert found["a"] == mean_with_ci(values[:3], seed=0, groups=[0, 0, 1])
    assert "ci95" not in found["b"]
    assert "ci95" not in summarise_parts(values, parts, seed=0, groups=[7, 7, 7, 7])["a"]
