"""Filters in the words of Chroma, on tables."""

import numpy as np
import pandas as pd
import pytest

from regionlab.engine_filters import match_rows

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
    ],
    ids=str,
)
def test_what_is_no_filter_is_refused(where, message):
    with pytest.raises(ValueError, match=message):
        match_rows(TABLE, where)


def test_there_must_be_a_table():
    with pytest.raises(ValueError, match="no table to filter by: give one when the engine is bui"):
        match_rows(None, {"label": "cat"})
