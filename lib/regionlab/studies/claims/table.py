"""The table of claims, `data/claims.csv`, and what is measured here beside each number.

The table has every number that the papers print as a result. A number that the running text
repeats from a table is left out; abstracts are kept. A range is two rows. S4's tables are the
ones whose cells the print broke in two.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from regionlab.util import paths

PAPERS = {
    "S0": "SAM-CLIP Search",
    "S1": "CLIP-DB",
    "S2": "CLIP-FAISS",
    "S3": "IntelliFix",
    "S4": "Composed retrieval",
}
CONSISTENT = "consistent"
DIFFERENT = "different protocol"
IMPOSSIBLE = "arithmetically impossible"
UNKNOWN = "not measurable here"
VERDICTS = (CONSISTENT, DIFFERENT, IMPOSSIBLE, UNKNOWN)

PLACE = ["paper", "table", "row", "column"]
COLUMNS = [*PLACE, "value", "unit", "remark", "key"]
KEY = re.compile(r"([\w-]+/)?\d\d_\w+:\S.*")  # [profile/]notebook:quantity

# What one unit is in the numbers that notebooks save, where shares are 0 to 1.
UNITS = {
    "%": 0.01,
    "points": 0.01,  # percentage points
    "of 4": 0.25,
    "1": 1.0,
    "s": 1.0,
    "ms": 1.0,
    "min": 1.0,
    "MB": 1.0,
    "px": 1.0,
    "count": 1.0,
    "rating": 1.0,  # 1 to 5
}

Place = tuple[str, str, str, str]


class Judgement(NamedTuple):
    """What one check says of one or several claims, and why."""

    places: Sequence[Place]
    verdict: str
    reason: str


def load_claims(path: Path | None = None) -> pd.DataFrame:
    """Read the table of claims and check it.

    Parameters
    ----------
    path
        The CSV file; the project's own by default.

    Returns
    -------
    pd.DataFrame
        Indexed by (paper, table, row, column): `value` float in `unit`, `printed` the
        same as the paper has it, `remark` on the protocol, and `key`, where the same
        quantity is measured here, as `[profile/]notebook:quantity`; empty if nowhere.

    Raises
    ------
    ValueError
        If a column is missing or surplus, or a row is repeated, names an unknown paper
        or unit, has no number, no remark, or a key of another form.
    """
    path = paths.expand(path or paths.DATA / "claims.csv")
    claims = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(claims) != COLUMNS:
        raise ValueError(f"{path.name} has the columns {list(claims)}, not {COLUMNS}")
    claims["printed"] = claims["value"]
    claims["value"] = pd.to_numeric(claims["printed"], errors="coerce")
    for fault, rows in _find_faults(claims).items():
        if rows.any():
            line = int(rows.to_numpy().argmax())
            raise ValueError(f"{path.name}, line {line + 2}: {fault}: {tuple(claims.loc[line])}")
    return claims.set_index(PLACE)


def _find_faults(claims: pd.DataFrame) -> dict[str, pd.Series]:
    """Return what can be wrong, with the rows where it is, as (n,) bool."""
    return {
        "repeats an earlier row": claims.duplicated(PLACE),
        f"paper is none of {list(PAPERS)}": ~claims["paper"].isin(list(PAPERS)),
        "part of the place is empty": (claims[PLACE] == "").any(axis=1),
        "value is no finite number": ~claims["value"].abs().lt(float("inf")),
        f"unit is none of {list(UNITS)}": ~claims["unit"].isin(list(UNITS)),
        "no remark on the protocol": claims["remark"] == "",
        "key is not [profile/]notebook:quantity": ~claims["key"].map(
            lambda key: not key or bool(KEY.fullmatch(key))
        ),
    }


def value_of(claims: pd.DataFrame, *place: str) -> float:
    """Return a claim's number, in the unit that notebooks save: shares as 0 to 1.

    Raises
    ------
    KeyError
        If there is no claim at (paper, table, row, column).
    """
    if place not in claims.index:
        raise KeyError(f"no claim at {place}")
    return float(claims.at[place, "value"]) * UNITS[claims.at[place, "unit"]]


def step_of(claims: pd.DataFrame, *place: str) -> float:
    """Return one unit of the last printed digit of a claim, in the unit of `value_of`."""
    decimals = claims.at[place, "printed"].partition(".")[2]
    return 10.0 ** -len(decimals) * UNITS[claims.at[place, "unit"]]


def show_printed(claims: pd.DataFrame, paper: str, table: str, row: str) -> str:
    """Write a row of one number or a range as the paper prints it: "85 to 120", "below 5".

    Raises
    ------
    KeyError
        If there is no such row.
    """
    wanted = (paper, table, row)
    printed = {place[3]: claims.at[place, "printed"] for place in claims.index
               if place[:3] == wanted}  # fmt: skip
    if not printed:
        raise KeyError(f"no claim at {wanted}")
    if {"low", "high"} <= printed.keys():
        return f"{printed['low']} to {printed['high']}"
    column, number = next(iter(printed.items()))
    return f"{column} {number}" if column in ("below", "above") else number


NOT_YET = "not measured yet"


def measure(claims: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Set the measured value beside every claim that has a key.

    Parameters
    ----------
    claims
        From `load_claims`, or with more columns from `audit`.
    folder
        Where a profile's results are, `<notebook>.json`. A key that begins with the name
        of a profile is looked up in that folder within it.

    Returns
    -------
    pd.DataFrame
        The claims with a key, with `paper_value` in the unit of the results, shares as 0
        to 1, `measured`, `low` and `high` of its 95 % interval and `n`, NaN where there is
        none, and `status`: "measured", or "not measured yet" where a file or quantity is
        missing.
    """
    keyed = claims[claims["key"] != ""]
    files = {key.partition(":")[0] for key in keyed["key"]}
    results = {file: _read_results(folder / f"{file}.json") for file in files}
    rows = [_look_up(results, key) for key in keyed["key"]]
    columns = pd.DataFrame(rows, keyed.index, ["measured", "low", "high", "n"], dtype=float)
    there = columns["measured"].notna()
    return keyed.assign(
        paper_value=keyed["value"] * keyed["unit"].map(UNITS),
        **columns,
        status=there.map({True: "measured", False: NOT_YET}),
    )


def _read_results(path: Path) -> Mapping[str, Any]:
    """Return the results of a file; none where it is missing or no such file."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return results if isinstance(results, dict) else {}


def _look_up(results: Mapping[str, Mapping], key: str) -> tuple[float | None, ...]:
    file, _, name = key.partition(":")
    quantity = find_quantity(results[file], name)
    if isinstance(quantity, dict):
        return (quantity.get("value"), *quantity.get("ci95", (None, None)), quantity.get("n"))
    return quantity, None, None, None


def find_quantity(results: Mapping[str, Any], name: str) -> Any:
    """Return the number, or `{"value", "ci95", "n"}`, that a dotted name leads to.

    Parts of the name may hold dots themselves. None where the name leads nowhere, or to
    something that is no number.
    """
    if name in results:
        found = results[name]
        number = found.get("value") if isinstance(found, dict) else found
        return found if type(number) in (int, float) else None
    for key, inner in results.items():
        if isinstance(inner, dict) and name.startswith(f"{key}."):
            found = find_quantity(inner, name.removeprefix(f"{key}."))
            if found is not None:
                return found
    return None
