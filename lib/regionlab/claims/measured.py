"""What is measured here, beside what the papers print."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from regionlab.claims.table import UNITS

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
