"""Filters: which rows of a table match, asked in the words that Chroma uses for its `where`."""

import operator
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

COMPARISONS: dict[str, Callable[[pd.Series, Any], pd.Series]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
    "$in": lambda column, values: column.isin(values),
    "$nin": lambda column, values: ~column.isin(values),
}
ORDERS = ("$gt", "$gte", "$lt", "$lte")
OTHER = ("$ne", "$nin")  # what is missing differs from every value
JOINTS = {"$and": np.logical_and, "$or": np.logical_or}


def match_rows(table: pd.DataFrame | None, where: Mapping[str, Any]) -> np.ndarray:
    """Return which rows of a table match a filter, (n,) bool.

    Parameters
    ----------
    table
        The columns to ask about.
    where
        One condition, `{"label": "cat"}` or `{"width": {"$gte": 640}}`, or several joined:
        `{"$and": [{...}, {...}]}`. Comparisons are those of `COMPARISONS`, as pandas makes them:
        1 equals 1.0 and True, and NumPy's numbers are numbers. What is missing differs from
        every value, and is neither more nor less.

    Raises
    ------
    ValueError
        If there is no table, or the filter is none, with the columns or words that are known.
    """
    if table is None:
        raise ValueError("there is no table to filter by: give one when the engine is built")
    if not isinstance(where, Mapping) or len(where) != 1:
        raise ValueError(
            f"a filter is one condition, such as {{'label': 'cat'}}, got {where!r}; "
            "join several by {'$and': [...]} or {'$or': [...]}"
        )
    ((key, value),) = where.items()
    if key in JOINTS:
        return _join(table, key, value)
    if key not in table.columns:
        known = ", ".join(map(str, table.columns))
        raise ValueError(f"no column {key!r} to filter by; known: {known}, $and, $or")
    return _compare(table[key], value)


def _join(table: pd.DataFrame, joint: str, parts: Any) -> np.ndarray:
    if not isinstance(parts, list) or len(parts) < 2:
        raise ValueError(f"{joint} joins a list of at least two conditions, got {parts!r}")
    return JOINTS[joint].reduce([match_rows(table, part) for part in parts])


def _compare(column: pd.Series, value: Any) -> np.ndarray:
    comparison = value if isinstance(value, Mapping) else {"$eq": value}
    if len(comparison) != 1 or not set(comparison) <= set(COMPARISONS):
        known = ", ".join(COMPARISONS)
        raise ValueError(f"{comparison!r} is not one comparison; known: {known}")
    ((word, operand),) = comparison.items()
    if (
        column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) == "date"
    ):  # as Parquet gives days back
        column = pd.to_datetime(column, errors="coerce")
    try:
        operand = _check_operand(column, word, operand)
        if word in ORDERS:  # texts with what is missing among them cannot be put in order
            present = column.notna()
            column = column[present]
        matches = COMPARISONS[word](column, operand).to_numpy(bool, na_value=word in OTHER)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{column.name} cannot be compared by {comparison!r}: {e}") from e
    if word in ORDERS:
        found = np.zeros(len(present), bool)
        found[present] = matches
        return found
    return matches


def _check_operand(column: pd.Series, word: str, operand: Any) -> Any:
    """Return what is compared with: a value, or a list of them; dates as such, not as text."""
    if word in ("$in", "$nin"):
        if isinstance(operand, str | bytes | Mapping) or not pd.api.types.is_list_like(operand):
            raise TypeError(f"{word} takes a list of values")
        return [_make_date(column, one) for one in operand]
    if isinstance(operand, np.ndarray) and operand.ndim == 0:
        operand = operand[()]
    if not pd.api.types.is_scalar(operand):
        raise TypeError(f"{word} takes one value; for several there is $in")
    return _make_date(column, operand)


def _make_date(column: pd.Series, value: Any) -> Any:
    """Return what names a day or a time as the column's own kind of it; all else as it is.

    Days and times without a zone are in the zone of the column.
    """
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        return value
    if not isinstance(value, str | date | np.datetime64):
        return value
    time = pd.Timestamp(value)
    zone = getattr(column.dtype, "tz", None)
    return time.tz_localize(zone) if zone is not None and time.tzinfo is None else time
