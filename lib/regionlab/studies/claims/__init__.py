"""What the five papers claim in numbers, and which of these numbers can stand.

table = claims.load_claims()
audited = claims.audit(table)  # a verdict and its reason for each number
beside = claims.measure(table, paths.FIGURES)  # what is measured here instead
"""

import pandas as pd

from regionlab.studies.claims.s0_s2 import S0_CHECKS, S1_S2_CHECKS
from regionlab.studies.claims.s3_s4 import S3_CHECKS, S3_RUNTIME_CHECKS, S4_CHECKS
from regionlab.studies.claims.table import (
    CONSISTENT,
    DIFFERENT,
    IMPOSSIBLE,
    PAPERS,
    PLACE,
    UNKNOWN,
    VERDICTS,
    Judgement,
    find_quantity,
    load_claims,
    measure,
    show_printed,
    value_of,
)

__all__ = [
    "PAPERS",
    "VERDICTS",
    "audit",
    "find_quantity",
    "load_claims",
    "measure",
    "run_checks",
    "show_printed",
    "value_of",
]


CHECKS = [*S0_CHECKS, *S1_S2_CHECKS, *S3_CHECKS, *S3_RUNTIME_CHECKS, *S4_CHECKS]
GRAVEST_FIRST = (IMPOSSIBLE, DIFFERENT, CONSISTENT)


def run_checks(claims: pd.DataFrame) -> pd.DataFrame:
    """Return what every check says of every claim that it judges.

    Parameters
    ----------
    claims
        From `load_claims`.

    Returns
    -------
    pd.DataFrame
        One row a check and claim: the claim's place, `check`, `verdict`, `reason`.

    Raises
    ------
    KeyError
        If a claim that a check needs is missing.
    """
    rows = [
        (*place, check.__name__.replace("_", " "), judgement.verdict, judgement.reason)
        for check in CHECKS
        for judgement in check(claims)
        for place in judgement.places
    ]
    return pd.DataFrame(rows, columns=[*PLACE, "check", "verdict", "reason"])


def audit(claims: pd.DataFrame) -> pd.DataFrame:
    """Give every claim a verdict and the reason for it.

    The gravest verdict of its checks counts, with the reasons of all checks that gave it.
    A claim that no check judges is of a different protocol where the same quantity is
    measured here on other data, and else not measurable here; its remark says why.

    Parameters
    ----------
    claims
        From `load_claims`.

    Returns
    -------
    pd.DataFrame
        The claims in their order, with `verdict` and `reason`.
    """
    judged = run_checks(claims).groupby(PLACE, sort=False)
    found = {place: _weigh(said) for place, said in judged}
    verdicts = [found.get(place) or _default(row) for place, row in claims.iterrows()]
    return claims.assign(
        verdict=[judgement.verdict for judgement in verdicts],
        reason=[judgement.reason for judgement in verdicts],
    )


def _weigh(said: pd.DataFrame) -> Judgement:
    verdict = next(v for v in GRAVEST_FIRST if v in set(said["verdict"]))
    reasons = said.loc[said["verdict"] == verdict, "reason"].unique()
    return Judgement([], verdict, " ".join(reasons))


def _default(row: pd.Series) -> Judgement:
    reason = row["remark"][0].upper() + row["remark"][1:] + "."
    return Judgement([], DIFFERENT if row["key"] else UNKNOWN, reason)
