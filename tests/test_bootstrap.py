"""Intervals that cover, and p-values that mean what they say."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from regionlab import bootstrap
from regionlab.bootstrap import compare_paired, summarise


def enumerate_p(differences):
    """Return the two-sided sign-flip p-value over all 2**n flips."""
    flips = np.array(list(itertools.product([1, -1], repeat=len(differences))))
    sums, observed = flips @ differences, np.sum(differences)
    right, left = np.mean(sums >= observed - 1e-9), np.mean(sums <= observed + 1e-9)
    return min(1, 2 * min(left, right))


def test_summary_leaves_out_undefined_queries_and_counts_them():
    summary = summarise(np.array([1, np.nan, 0, 1, np.nan]), seed=0)
    assert summary["value"] == 2 / 3
    assert (summary["n"], summary["n_undefined"]) == (3, 2)


def test_summary_of_defined_queries_has_no_n_undefined():
    assert set(summarise(np.array([0.0, 1.0]), seed=0)) == {"value", "ci95", "n"}


def test_results_are_plain_json():
    values = np.array([0, 1, 1, np.nan])
    result = [summarise(values, seed=0), compare_paired(values, values[::-1], seed=0)]
    assert json.loads(json.dumps(result)) == result


def test_interval_equals_the_normal_one_for_many_queries():
    values = np.random.default_rng(0).exponential(size=2000)
    half = 1.96 * values.std() / np.sqrt(2000)
    low, high = summarise(values, seed=1, n_resamples=4000)["ci95"]
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        low, high = summarise(rng.beta(2, 1, size=80), seed=rng, n_resamples=400)["ci95"]
        covered += low <= 2 / 3 <= high
    assert 0.89 <= covered / 200 <= 0.985


def test_same_seed_same_result_whatever_the_batch(monkeypatch):
    a, b = np.random.default_rng(3).random((2, 50))
    expected = summarise(a, seed=7), compare_paired(a, b, seed=7)
    monkeypatch.setattr(bootstrap, "_CELLS_A_BATCH", 333)
    assert (summarise(a, seed=7), compare_paired(a, b, seed=7)) == expected
    assert summarise(a, seed=8)["ci95"] != expected[0]["ci95"]


def test_difference_is_a_minus_b_over_queries_defined_in_both():
    a, b = np.array([1, np.nan, 1, 0.5]), np.array([0, 0, np.nan, 0.25])
    result = compare_paired(a, b, seed=0)
    assert result["difference"] == (1 + 0.25) / 2
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
    assert forth["difference"] == -back["difference"]


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
    assert compare_paired(a, a, seed=0) == {"difference": 0, "ci95": [0, 0], "p_value": 1, "n": 30}


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
        summarise(np.array(values), seed=0)
    with pytest.raises(ValueError, match=message):
        compare_paired(np.array(values), np.array(values), seed=0)


def test_methods_on_different_queries_are_refused():
    with pytest.raises(ValueError, match="a has 3 queries, b has 2"):
        compare_paired(np.zeros(3), np.zeros(2), seed=0)


def test_too_few_resamples_are_refused():
    with pytest.raises(ValueError, match="n_resamples=10 "):
        summarise(np.zeros(3), seed=0, n_resamples=10)


def test_import_loads_nothing_heavy():
    code = (
        "import sys, regionlab.metrics, regionlab.bootstrap;"
        "print({'scipy', 'torch', 'pandas', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
