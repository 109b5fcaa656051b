"""The arithmetic behind the checks, apart from any paper. Shares are 0 to 1."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from regionlab.studies.claims.table import (
    CONSISTENT,
    IMPOSSIBLE,
    Judgement,
    Place,
    step_of,
    value_of,
)

WEAK = 0.05  # chance of passing from which a reason says so


def judge_share(claims: pd.DataFrame, places: Sequence[Place], n: int) -> Iterator[Judgement]:
    """Judge a number, printed at one or several places, as a share of n samples.

    The reason says how likely a random number would pass; one that any would pass is not judged.
    """
    printed, step = value_of(claims, *places[0]), step_of(claims, *places[0])
    nearest, chance = nearest_share(printed, n), chance_of_share(n, step)
    if chance == 1:
        return
    yield Judgement(
        places,
        CONSISTENT if grim_consistent(printed, n, step) else IMPOSSIBLE,
        f"{printed:.2%} of {n:,} is {printed * n:.2f}; the nearest whole number, "
        f"{nearest * n:.0f}, makes {nearest:.2%}. A random number so printed passes with "
        f"probability {chance:.2f}" + (": by itself this says little." if chance > WEAK else "."),
    )


def grim_consistent(printed: float, n: int, step: float) -> bool:
    """Say whether some whole number out of n is printed so, rounded or cut off.

    Parameters
    ----------
    printed
        The share as printed.
    n
        Out of how many.
    step
        One unit of the last printed digit.
    """
    least, beyond = (round((printed + reach) * n, 6) for reach in (-0.5 * step, step))
    return math.ceil(least) < beyond


def chance_of_share(n: int, step: float) -> float:
    """Return the chance that a random number so printed could be a share of n; 1 says nothing.

    A printed number stands for an interval of one and a half steps, see `grim_consistent`.
    """
    return min(1.0, 1.5 * step * n)


def nearest_share(printed: float, n: int) -> float:
    """Return the share of n that is nearest to a printed one."""
    return round(printed * n) / n


def is_near(value: float, printed: float, step: float) -> bool:
    """Say whether a value is printed so, rounded or cut off, from numbers rounded alike.

    Two units of the last digit are allowed: the value is computed from printed numbers.
    """
    return abs(value - printed) < 2 * step + 1e-12


def harmonic_mean(a: float, b: float) -> float:
    """Return 2ab / (a + b), which makes F1 of precision and recall."""
    return 2 * a * b / (a + b)


def widest_average_gap(values: tuple[float, float], supports: tuple[int, int]) -> float:
    """Return how far a weighted mean over classes can be from the unweighted one.

    |sum (w_i - 1/K) v_i| is at most half the range of v times sum |w_i - 1/K|, and that
    sum is greatest, for any number of classes K, where supports lie at both ends only.

    Parameters
    ----------
    values
        Least and greatest value of a class.
    supports
        Least and greatest number of samples of a class, the weights.
    """
    (low, high), (few, many) = values, supports
    few_root, many_root = math.sqrt(few), math.sqrt(many)
    return (high - low) * (many_root - few_root) / (many_root + few_root)


def chance_of_hit(classes: int, k: int) -> float:
    """Return the chance that k random labels of equally many samples hold the right one."""
    return 1 - (1 - 1 / classes) ** k


def least_first_precision(hit_at_k: float, precision_at_k: float, k: int) -> float:
    """Return the least possible precision@1 beside hit@k and precision@k.

    A query with a relevant answer among k, but not first, has at most k - 1 of them:
    k precision@k <= (k - 1) hit@k + precision@1, on average over queries.
    """
    return k * precision_at_k - (k - 1) * hit_at_k


def precision_after_first(precision_at_1: float, precision_at_k: float, k: int) -> float:
    """Return the share of relevant answers at ranks 2 to k."""
    return (k * precision_at_k - precision_at_1) / (k - 1)


def saved_time(before: float, after: float) -> float:
    """Return by which share of itself a duration shrinks; negative if it grows."""
    return (before - after) / before
