"""P-values as they are written, and corrected where many tests are made."""

import numpy as np
import pytest

from regionlab.runs.report import correct_holm, correct_tests, show_p


def step_down(p_values):
    """Holm's procedure as it is taught: reject the least p while p * (tests left) <= level."""
    levels = np.linspace(0, 1, 2001)
    corrected = [1.0] * len(p_values)
    for level in levels[::-1]:
        left = sorted(range(len(p_values)), key=lambda i: p_values[i])
        while left and p_values[left[0]] * len(left) <= level:
            corrected[left.pop(0)] = level
    return corrected


def test_holm_rejects_what_the_procedure_rejects():
    p_values = np.random.default_rng(0).random(8) ** 3
    assert correct_holm(p_values) == pytest.approx(step_down(p_values), abs=1e-3)


def test_holm_by_hand():
    assert correct_holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert correct_holm([0.6, 0.7]) == [1, 1]
    assert correct_holm([]) == []


def test_all_tests_of_nested_results_are_one_family():
    tests = {"a": {"p_value": 0.01}, "b": [{"c": {"p_value": 0.04, "n": 3}}], "d": 1}
    found = correct_tests(tests)
    assert found["a"] == {"p_value": 0.01, "p_holm": 0.02}
    assert found["b"][0]["c"] == {"p_value": 0.04, "p_holm": 0.04, "n": 3}
    assert found["d"] == 1 and "p_holm" not in tests["a"]


@pytest.mark.parametrize(
    ("test", "written"),
    [
        ({"p_value": 0.0123}, "= 0.012"),
        ({"p_value": 2 / 2001, "p_is_floor": True}, "≤ 0.001"),
        ({"p_value": 2 / 201, "p_is_floor": True}, "≤ 0.01"),
        ({"p_value": 2 / 1501, "p_is_floor": True}, "≤ 0.0014"),  # never less than it is
        ({"p_value": 2 / 2001}, "= 0.001"),
    ],
)
def test_a_p_value_says_whether_it_is_only_bounded(test, written):
    assert show_p(test) == written


def test_the_corrected_p_value_is_bounded_too():
    assert show_p({"p_holm": 60 / 2001, "p_is_floor": True}, "p_holm") == "≤ 0.03"
    assert show_p({"p_holm": 1.0, "p_is_floor": True}, "p_holm") == "= 1"
