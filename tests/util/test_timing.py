"""Medians of what was measured."""

import pytest

from regionlab.util import progress as timing


@pytest.mark.parametrize(
    "seconds, median", [([9, 4, 1, 2, 3], 2.5), ([9, 5, 1, 2], 2), ([9, 7], 7)], ids=str
)
def test_the_median_of_an_even_number_of_calls_is_the_mean_of_the_middle_two(
    seconds, median, monkeypatch
):
    taken = iter(seconds[1:])  # the first call does not count
    monkeypatch.setattr(timing, "_seconds", lambda call: call() or next(taken))
    calls = []
    found = timing.time_calls(lambda: calls.append(1), repeats=len(seconds) - 1)
    assert found == median and len(calls) == len(seconds)
