"""What counts as relevant, on collections small enough to see through."""

import numpy as np
import pandas as pd
import pytest

from regionlab.collection import Collection, make_table
from regionlab.relevance import count_shared_kinds, is_own_image


def make_collection(tmp_path, objects):
    """Images a, b, c, ... with objects given as (image, category, color, iscrowd)."""
    ids = sorted({image for image, *_ in objects} | {"z"})
    n = len(objects)
    images, category, color, crowd = zip(*objects, strict=True)
    return Collection(
        tmp_path,
        make_table("images", {"image_id": ids, "path": [f"{i}.jpg" for i in ids],
                              "width": [9] * len(ids), "height": [9] * len(ids)}),
        make_table("objects", {"object_id": [str(i) for i in range(n)], "image_id": images,
                               "category": category, "x0": [0.0] * n, "y0": [0.0] * n,
                               "x1": [1.0] * n, "y1": [1.0] * n, "area": [1.0] * n,
                               "iscrowd": crowd, "segmentation": [None] * n,
                               "color": list(color)}),
    )  # fmt: skip


OBJECTS = [
    ("a", "star", "red", False), ("a", "star", "red", False), ("a", "ring", "blue", False),
    ("b", "star", "red", False), ("b", "ring", "green", False),
    ("c", "ring", "blue", True),
]  # fmt: skip


def test_own_image_is_the_only_right_one():
    expected = [[False, True, False], [True, False, False], [False, False, False]]
    assert is_own_image(["b", "a", "x"], ["a", "b", "c"]).tolist() == expected


def test_kinds_in_common_are_counted_once_each(tmp_path):
    collection = make_collection(tmp_path, OBJECTS)
    shared = count_shared_kinds(collection, ["a", "b"], ["a", "b"], by=["category", "color"])
    assert shared.tolist() == [[2, 1], [1, 2]]  # a: red star, blue ring; b: red star, green ring


def test_fewer_columns_make_wider_kinds(tmp_path):
    collection = make_collection(tmp_path, OBJECTS)
    assert count_shared_kinds(collection, ["a"], ["b"], by=["category"]).tolist() == [[2]]


def test_crowds_and_images_without_objects_share_nothing(tmp_path):
    collection = make_collection(tmp_path, OBJECTS)
    assert not count_shared_kinds(collection, ["a", "z"], ["c", "z"]).any()


def test_shared_kinds_agree_with_counting_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    objects = [
        (f"i{rng.integers(8)}", f"s{rng.integers(5)}", f"c{rng.integers(3)}", rng.random() < 0.2)
        for _ in range(40)
    ]
    collection = make_collection(tmp_path, objects)
    ids = collection.images["image_id"].tolist()
    kinds = {i: {(s, c) for o, s, c, crowd in objects if o == i and not crowd} for i in ids}
    slow = [[len(kinds[q] & kinds[g]) for g in ids] for q in ids]
    assert count_shared_kinds(collection, ids, ids, by=["category", "color"]).tolist() == slow


def test_unknown_column_is_told_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="no column 'texture'.*there are: object_id, .*color"):
        count_shared_kinds(make_collection(tmp_path, OBJECTS), ["a"], ["b"], by=["texture"])


def test_objects_without_the_attribute_are_of_no_kind(tmp_path):
    collection = make_collection(tmp_path, OBJECTS)
    collection.objects["color"] = pd.Series([None] * len(OBJECTS), dtype=object)
    assert not count_shared_kinds(collection, ["a"], ["a"], by=["color"]).any()
