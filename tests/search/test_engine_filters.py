"""Filters in the words of Chroma, on tables."""

import datetime as dt
import operator

import numpy as np
import pandas as pd
import pytest

from regionlab.search.engines import build_engine
from regionlab.search.filters import COMPARISONS, match_rows

TABLE = pd.DataFrame({
    "label": ["cat", "dog", None, "cat"],
    "width": [640, 480, 640, 320],
    "quality": [0.5, np.nan, 0.9, 0.1],
    "sharp": [True, False, True, False],
})  # fmt: skip


@pytest.mark.parametrize(
    "where, rows",
    [
        ({"label": "cat"}, [0, 3]),
        ({"label": {"$eq": "dog"}}, [1]),
        ({"label": {"$ne": "cat"}}, [1, 2]),
        ({"label": {"$in": ["cat", "cow"]}}, [0, 3]),
        ({"label": {"$nin": ["cat"]}}, [1, 2]),
        ({"width": {"$gt": 480}}, [0, 2]),
        ({"width": {"$gte": 480}}, [0, 1, 2]),
        ({"width": {"$lt": 480}}, [3]),
        ({"width": {"$lte": 480}}, [1, 3]),
        ({"quality": {"$lt": 1}}, [0, 2, 3]),
        ({"quality": {"$ne": 0.5}}, [1, 2, 3]),
        ({"sharp": True}, [0, 2]),
        ({"$and": [{"label": "cat"}, {"width": 640}]}, [0]),
        ({"$or": [{"label": "dog"}, {"$and": [{"sharp": True}, {"width": 640}]}]}, [0, 1, 2]),
    ],
    ids=str,
)
def test_rows_match(where, rows):
    found = match_rows(TABLE, where)
    assert found.dtype == bool
    assert np.flatnonzero(found).tolist() == rows


@pytest.mark.parametrize(
    "where, message",
    [
        ({}, "a filter is one condition"),
        ({"label": "cat", "width": 3}, r"join several by \{'\$and': \[\.\.\.\]\}"),
        ("label", "a filter is one condition"),
        ({"colour": "red"}, r"no column 'colour' to filter by; known: label, .*sharp, \$and, \$or"),
        ({"$not": []}, r"no column '\$not'"),
        ({"$and": [{"label": "cat"}]}, r"\$and joins a list of at least two"),
        ({"$or": {"label": "cat"}}, r"\$or joins a list"),
        ({"label": {"$like": "c%"}}, r"is not one comparison; known: \$eq, .*\$nin"),
        ({"width": {"$gt": 1, "$lt": 9}}, "is not one comparison"),
        ({"width": {"$gt": "wide"}}, "width cannot be compared by"),
        ({"label": {"$in": 3}}, "label cannot be compared by"),
        ({"label": {"$in": "cat"}}, r"label cannot be compared by .*\$in takes a list"),
        ({"label": ["cat", "dog", "cow", "owl"]}, r"label cannot be .* for several there is \$in"),
        ({"label": {"$ne": {"cat"}}}, r"label cannot be .* for several there is \$in"),
    ],
    ids=str,
)
def test_what_is_no_filter_is_refused(where, message):
    with pytest.raises(ValueError, match=message):
        match_rows(TABLE, where)


@pytest.mark.parametrize(
    "where, matches",
    [
        ({"$eq": 3}, [0, 0, 1]),
        ({"$ne": 3}, [1, 1, 0]),
        ({"$in": [3, 4]}, [0, 0, 1]),
        ({"$nin": [3, 4]}, [1, 1, 0]),
        ({"$gte": 1}, [1, 0, 1]),
        ({"$lt": 3}, [1, 0, 0]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["Int64", "float64", "Float64", object])
def test_what_is_missing_differs_from_every_value(where, matches, dtype):
    table = pd.DataFrame({"n": pd.Series([1, None, 3], dtype=dtype)})
    assert match_rows(table, {"n": where}).tolist() == [bool(match) for match in matches]


def test_dates_may_be_written():
    table = pd.DataFrame({"day": pd.to_datetime(["2024-01-01", None, "2025-03-04"])})
    for where, rows in (
        ({"$eq": "2024-01-01"}, [0]),
        ({"$in": ["2024-01-01", np.datetime64("2025-03-04")]}, [0, 2]),
        ({"$gt": "2024-06-01"}, [2]),
        ({"$nin": ["2024-01-01"]}, [1, 2]),
    ):
        assert np.flatnonzero(match_rows(table, {"day": where})).tolist() == rows


def test_an_array_of_one_number_is_a_number():
    assert match_rows(TABLE, {"width": np.array(480)}).tolist() == [False, True, False, False]


# All engines, row by row


def ask_slowly(value, word, operand):
    """Compare a single value in plain Python; what is missing differs from everything."""
    if word in ("$nin", "$ne"):
        return not ask_slowly(value, {"$nin": "$in", "$ne": "$eq"}[word], operand)
    if pd.isna(value):
        return False
    if word == "$in":
        return any(value == one for one in operand)
    if word == "$eq":
        return bool(value == operand)
    if isinstance(value, str) != isinstance(operand, str):
        raise ValueError
    return bool({"$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt,
                 "$lte": operator.le}[word](value, operand))  # fmt: skip


def match_slowly(table, where):
    ((key, asked),) = where.items()
    if key in ("$and", "$or"):
        parts = [match_slowly(table, part) for part in asked]
        return (np.all if key == "$and" else np.any)(parts, axis=0)
    ((word, operand),) = asked.items() if isinstance(asked, dict) else (("$eq", asked),)
    return np.array([ask_slowly(value, word, operand) for value in table[key].astype(object)])


def draw_table(rng, n):
    holes = rng.random(n) < 0.2
    numbers = rng.integers(0, 4, n)
    return pd.DataFrame({
        "count": numbers,
        "flag": rng.random(n) < 0.3,
        "share": np.where(holes, np.nan, numbers / 2),
        "whole": pd.Series(numbers, dtype="Int64").mask(holes),
        "maybe": pd.Series(numbers > 1, dtype="boolean").mask(holes),
        "label": pd.Series(np.array(["0", "1", "cat", "dog"])[numbers]).mask(holes),
        "texts": pd.Series(np.array(["0", "1", "cat", None], object)[numbers], dtype=object),
        "kind": pd.Series(np.array(["a", "b", "c", "d"])[numbers]).astype("category"),
        "day": pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(numbers, "D")).mask(holes),
    })  # fmt: skip


NUMBERS = [0, 1, 2, True, False, 1.0, 0.5, 1.5, np.int64(1), np.float32(0.5), np.bool_(True),
           np.uint8(2), np.True_]  # fmt: skip
OPERANDS = (
    dict.fromkeys(["count", "flag", "share", "whole", "maybe"], [*NUMBERS, "1", "cat"])
    | dict.fromkeys(["label", "texts", "kind"], ["0", "1", "cat", "a", np.str_("cat"), 1, True])
    | {"day": [pd.Timestamp("2024-01-02"), np.datetime64("2024-01-03"), dt.datetime(2024, 1, 1)]}
)  # fmt: skip


def draw_filter(rng, depth=0):
    if depth < 2 and rng.random() < 0.3:
        parts = [draw_filter(rng, depth + 1) for _ in range(rng.integers(2, 4))]
        return {["$and", "$or"][rng.integers(2)]: parts}
    column = list(OPERANDS)[rng.integers(len(OPERANDS))]
    operands = OPERANDS[column]
    word = list(COMPARISONS)[rng.integers(len(COMPARISONS))]
    if word in ("$in", "$nin"):
        return {column: {word: [operands[i] for i in rng.integers(len(operands), size=2)]}}
    if word in ("$gt", "$gte", "$lt", "$lte"):  # alike only, and categories have no order
        column = "share" if column == "kind" else column
        operands = [o for o in OPERANDS[column] if isinstance(o, str) == (column in TEXTS)]
    operand = operands[rng.integers(len(operands))]
    return {column: operand} if rng.random() < 0.2 else {column: {word: operand}}


TEXTS = ("label", "texts")


@pytest.mark.parametrize("seed", range(3))
def test_all_engines_find_the_rows_that_plain_python_does(seed, tmp_path):
    rng = np.random.default_rng(seed)
    n = 300
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = draw_table(rng, n)
    names = ("exact", "faiss:HNSW8", "faiss:IVF16,Flat", "faiss:PQ4x4", "chroma")
    engines = [build_engine(name, vectors, folder=tmp_path, table=table) for name in names]
    for _ in range(60):
        where = draw_filter(rng)
        expected = match_slowly(table, where)
        k = int(rng.integers(1, n))
        answers = [engine.search(vectors[:2], k, where=where) for engine in engines]
        for (rows, scores), name in zip(answers, names, strict=True):
            assert (rows >= 0).sum(axis=1).tolist() == [min(k, expected.sum())] * 2, (name, where)
            assert expected[rows[rows >= 0]].all(), (name, where)
            np.testing.assert_array_equal(scores, answers[0][1])


def test_there_must_be_a_table():
    with pytest.raises(ValueError, match="no table to filter by: give one when the engine is bui"):
        match_rows(None, {"label": "cat"})


DAYS = pd.date_range("2020-01-01", periods=5)
DAY_COLUMNS = {
    "times": pd.Series(DAYS),
    "times of a zone": pd.Series(DAYS.tz_localize("Asia/Tokyo")),
    "days": pd.Series(list(DAYS.date)),
}
THIRD = {"text": "2020-01-03", "day": dt.date(2020, 1, 3), "time": dt.datetime(2020, 1, 3)}


@pytest.mark.parametrize("kind", THIRD)
@pytest.mark.parametrize("column", DAY_COLUMNS)
def test_a_day_is_found_however_it_is_written(column, kind):
    table, day = pd.DataFrame({"day": DAY_COLUMNS[column]}), THIRD[kind]
    filters = [day, {"$in": [day]}, {"$gte": day}, {"$lt": day}, {"$ne": day}]
    found = [np.flatnonzero(match_rows(table, {"day": one})).tolist() for one in filters]
    assert found == [[2], [2], [2, 3, 4], [0, 1], [0, 1, 3, 4]]
