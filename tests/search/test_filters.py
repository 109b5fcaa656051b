"""Filters: expressions, functions and masks over the rows of a table, against plain Python."""

import datetime as dt
import operator

import numpy as np
import pandas as pd
import pytest

from regionlab.search.engine import match_rows
from regionlab.search.engines import build_engine
from regionlab.util.errors import RegionlabError

TABLE = pd.DataFrame({
    "label": ["cat", "dog", None, "cat"],
    "width": [640, 480, 640, 320],
    "quality": [0.5, np.nan, 0.9, 0.1],
    "sharp": [True, False, True, False],
})  # fmt: skip


@pytest.mark.parametrize(
    "where, rows",
    [
        ("label == 'cat'", [0, 3]),
        ("label != 'cat'", [1, 2]),
        ("label in ['cat', 'cow']", [0, 3]),
        ("label not in ['cat']", [1, 2]),
        ("width > 480", [0, 2]),
        ("width >= 480", [0, 1, 2]),
        ("width < 480", [3]),
        ("width <= 480", [1, 3]),
        ("320 < width < 640", [1]),
        ("width > -1", [0, 1, 2, 3]),
        ("quality < 1", [0, 2, 3]),
        ("quality != 0.5", [1, 2, 3]),
        ("sharp", [0, 2]),
        ("not sharp", [1, 3]),
        ("sharp == True", [0, 2]),
        (" label == 'cat' and width == 640\n", [0]),
        ("label == 'dog' or (sharp and width == 640)", [0, 1, 2]),
        (lambda table: table["width"] > 480, [0, 2]),
        (lambda table: table["label"].str.startswith("d").fillna(False).astype(bool), [1]),
        (np.array([True, False, False, True]), [0, 3]),
        ([False, True, True, False], [1, 2]),
        (TABLE["sharp"], [0, 2]),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_rows_match(where, rows):
    found = match_rows(TABLE, where)
    assert found.dtype == bool
    assert np.flatnonzero(found).tolist() == rows


@pytest.mark.parametrize(
    "where, message",
    [
        ("", "cannot filter"),
        ("label = 'cat'", "cannot filter: .*known columns: label, width, quality, sharp"),
        ("colour == 'red'", "no column 'colour' to filter by; known: label, .*sharp"),
        ("label == cat", "no column 'cat' to filter by"),
        ("width > 'wide'", "cannot filter"),
        ("width", r"must give \(4,\) bool, got int64"),
        ("True", r"must give \(4,\) bool, got bool of shape \(\)"),
        ("not 'cat'", "cannot filter"),
        ("label in 'cat'", "cannot filter"),
        ("sharp is True", "only comparisons of columns can filter, got 'sharp is True'"),
        ("width + 1 > 3", "only comparisons of columns can filter"),
        ("label.str.len() == 3", "only comparisons of columns can filter"),
        ("@open('x') == 3", "cannot filter"),
        ("__import__('os')", "only comparisons of columns can filter"),
        (np.array([0, 3]), r"must give \(4,\) bool, got int64 of shape \(2,\)"),
        ({"label": "cat"}, r"must give \(4,\) bool"),
    ],
    ids=str,
)
def test_what_is_no_filter_is_refused(where, message):
    with pytest.raises(ValueError, match=message) as caught:
        match_rows(TABLE, where)
    assert isinstance(caught.value, RegionlabError)


def test_there_must_be_a_table():
    with pytest.raises(ValueError, match="no table to filter by: give one when the engine is bui"):
        match_rows(None, "label == 'cat'")


@pytest.mark.parametrize("dtype", ["Int64", "float64", "Float64", "object"])
def test_what_is_missing_equals_no_value(dtype):
    table = pd.DataFrame({"n": pd.Series([1, None, 3], dtype=dtype)})
    assert match_rows(table, "n == 3").tolist() == [False, False, True]
    assert match_rows(table, "n in [3, 4]").tolist() == [False, False, True]
    if dtype != "object":
        assert match_rows(table, "n >= 1").tolist() == [True, False, True]
        assert match_rows(table, "n < 3").tolist() == [True, False, False]


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_dates_may_be_written(zone):
    days = pd.Series(pd.date_range("2020-01-01", periods=4, tz=zone))
    table = pd.DataFrame({"day": days.where(np.arange(4) != 1)})
    for where, rows in (
        ("day == '2020-01-03'", [2]),
        ("day >= '2020-01-03'", [2, 3]),
        ("day < '2020-01-03'", [0]),
        (lambda table: table["day"].dt.date == dt.date(2020, 1, 3), [2]),
    ):
        assert np.flatnonzero(match_rows(table, where)).tolist() == rows


# All engines, row by row

COMPARISONS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
               ">": operator.gt, ">=": operator.ge}  # fmt: skip


def compare_slowly(value, word, operand):
    """Compare a single value in plain Python; what is missing differs from everything."""
    if word in ("not in", "!="):
        return not compare_slowly(value, {"not in": "in", "!=": "=="}[word], operand)
    if pd.isna(value):
        return False
    if word == "in":
        return any(value == one for one in operand)
    return bool(COMPARISONS[word](value, operand))


def sample_table(rng, n):
    holes = rng.random(n) < 0.2
    numbers = rng.integers(0, 4, n)
    return pd.DataFrame({
        "count": numbers,
        "flag": rng.random(n) < 0.3,
        "share": np.where(holes, np.nan, numbers / 2),
        "label": pd.Series(np.array(["0", "1", "cat", "dog"])[numbers]).mask(holes),
        "texts": pd.Series(np.array(["0", "1", "cat", None], object)[numbers], dtype=object),
        "kind": pd.Series(np.array(["a", "b", "c", "d"])[numbers]).astype("category"),
    })  # fmt: skip


NUMBERS, TEXTS = [0, 1, 2, True, False, 1.0, 0.5, 1.5], ["0", "1", "cat", "a"]
OPERANDS = (
    dict.fromkeys(["count", "flag", "share"], NUMBERS)
    | dict.fromkeys(["label", "texts", "kind"], TEXTS)
)  # fmt: skip


def sample_filter(rng, table, depth=0):
    """An expression, and the rows that it keeps, in plain Python."""
    if depth < 2 and rng.random() < 0.4:
        (one, kept), (other, too) = (sample_filter(rng, table, depth + 1) for _ in range(2))
        if rng.random() < 0.5:
            return f"({one}) and ({other})", kept & too
        return f"({one}) or not ({other})", kept | ~too
    column = list(OPERANDS)[rng.integers(len(OPERANDS))]
    of_numbers = column in ("count", "flag", "share")
    words = ["==", "!=", "in", "not in", *(["<", "<=", ">", ">="] if of_numbers else [])]
    word, operands = words[rng.integers(len(words))], OPERANDS[column]
    operand = operands[rng.integers(len(operands))]
    if "in" in word:
        operand = [operands[i] for i in rng.integers(len(operands), size=2)]
    values = table[column].astype(object)
    kept = np.array([compare_slowly(value, word, operand) for value in values])
    return f"{column} {word} {operand!r}", kept


@pytest.mark.parametrize("seed", range(3))
def test_all_engines_find_the_rows_that_plain_python_does(seed, tmp_path):
    rng = np.random.default_rng(seed)
    n = 300
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = sample_table(rng, n)
    names = ("exact", "faiss:HNSW8", "faiss:IVF16,Flat", "faiss:PQ4x4", "chroma")
    engines = [build_engine(name, vectors, folder=tmp_path, table=table) for name in names]
    for _ in range(60):
        where, expected = sample_filter(rng, table)
        k = int(rng.integers(1, n))
        answers = [engine.search(vectors[:2], k, where=where) for engine in engines]
        for (rows, scores), name in zip(answers, names, strict=True):
            assert (rows >= 0).sum(axis=1).tolist() == [min(k, expected.sum())] * 2, (name, where)
            assert expected[rows[rows >= 0]].all(), (name, where)
            np.testing.assert_array_equal(scores, answers[0][1])
