"""P-values of tests: how they are written, and corrected where many are made at once."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def show_p(test: Mapping[str, Any], key: str = "p_value") -> str:
    """Write the p-value of `compare_paired` to two digits, as "= 0.012" or "≤ 0.001".

    The second where it is only known to be no larger. `key` may be "p_holm".
    """
    p = test[key]
    if not test.get("p_is_floor") or p == 1:
        return f"= {p:.2g}"
    unit = 10.0 ** (math.floor(math.log10(p)) - 1)
    return f"≤ {math.ceil(p / unit - 1e-9) * unit:.2g}"


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values, each corrected for all of them being tried (Holm 1979).

    The chance that any of them is at most x where nothing differs is then at most x.
    """
    order = np.argsort(p_values, kind="stable")
    left = np.arange(len(order), 0, -1)  # tests that are not more significant
    raised = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * left)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(raised, 1)
    return corrected.tolist()


def correct_tests(results: Any) -> Any:
    """Return a copy of nested results with "p_holm" beside every "p_value" in them.

    All tests of the results are one family, whatever their names, see `correct_holm`.
    """
    corrected = iter(correct_holm(list(_list_p_values(results))))
    return _add_corrected(results, corrected)


def _list_p_values(results: Any) -> Iterator[float]:
    if isinstance(results, Mapping):
        if "p_value" in results:
            yield results["p_value"]
        results = list(results.values())
    for inner in results if isinstance(results, list) else ():
        yield from _list_p_values(inner)


def _add_corrected(results: Any, corrected: Iterator[float]) -> Any:
    if isinstance(results, list):
        return [_add_corrected(inner, corrected) for inner in results]
    if not isinstance(results, Mapping):
        return results
    own = {"p_holm": next(corrected)} if "p_value" in results else {}
    return {key: _add_corrected(inner, corrected) for key, inner in results.items()} | own
