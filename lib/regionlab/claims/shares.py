"""The check that needs nothing but n: a share of n samples is a whole number out of n."""

from collections.abc import Iterator, Sequence

import pandas as pd

from regionlab.claims.arithmetic import could_be_share, nearest_share
from regionlab.claims.table import CONSISTENT, IMPOSSIBLE, Judgement, Place, step_of, value_of


def judge_share(claims: pd.DataFrame, places: Sequence[Place], n: int) -> Iterator[Judgement]:
    """Judge a number, printed at one or several places, as a share of n samples."""
    printed, step = value_of(claims, *places[0]), step_of(claims, *places[0])
    nearest = nearest_share(printed, n)
    yield Judgement(
        places,
        CONSISTENT if could_be_share(printed, n, step) else IMPOSSIBLE,
        f"{printed:.2%} of {n:,} is {printed * n:.2f}; the nearest whole number, "
        f"{nearest * n:.0f}, makes {nearest:.2%}.",
    )
