"""The check that needs nothing but n: a share of n samples is a whole number out of n."""

from collections.abc import Iterator, Sequence

import pandas as pd

from regionlab.claims.arithmetic import chance_of_share, could_be_share, nearest_share
from regionlab.claims.table import CONSISTENT, IMPOSSIBLE, Judgement, Place, step_of, value_of

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
        CONSISTENT if could_be_share(printed, n, step) else IMPOSSIBLE,
        f"{printed:.2%} of {n:,} is {printed * n:.2f}; the nearest whole number, "
        f"{nearest * n:.0f}, makes {nearest:.2%}. A random number so printed passes with "
        f"probability {chance:.2f}" + (": by itself this says little." if chance > WEAK else "."),
    )
