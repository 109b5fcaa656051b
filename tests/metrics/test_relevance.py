"""What counts as relevant, on collections small enough to see through."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from regionlab.data.collection import Collection, make_table
from regionlab.metrics.ranking import count_shared_kinds, holds_kinds_of, is_own_image


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


def test_an_image_answers_for_an_object_if_it_holds_one_of_its_kind(tmp_path):
    collection = make_collection(tmp_path, OBJECTS)
    holds = holds_kinds_of(collection, [["0"], ["2"]], ["a", "b", "c", "z"])
    # Object 0 is a star, object 2 a ring; the ring of image c is a crowd.
    assert holds.tolist() == [[True, True, False, False], [True, True, False, False]]
    by_color = holds_kinds_of(collection, [["2"]], ["a", "b"], by=["category", "color"])
    assert by_color.tolist() == [[True, False]]


def test_several_objects_have_to_be_in_one_image(tmp_path):
    objects = [("a", "star", "", False), ("a", "ring", "", False), ("b", "star", "", False),
               ("b", "star", "", False), ("c", "ring", "", False)]  # fmt: skip
    collection = make_collection(tmp_path, objects)
    holds = holds_kinds_of(collection, [["0", "1"], ["2", "3"]], ["a", "b", "c"])
    # A star and a ring are not two stars, nor are two stars one.
    assert holds.tolist() == [[True, False, False], [False, True, False]]


def test_kinds_held_agree_with_counting_by_hand(tmp_path):
    rng = np.random.default_rng(1)
    objects = [
        (f"i{rng.integers(8)}", f"s{rng.integers(3)}", f"c{rng.integers(2)}", rng.random() < 0.2)
        for _ in range(60)
    ]
    collection = make_collection(tmp_path, objects)
    ids = collection.images["image_id"].tolist()
    whole = [str(row) for row, (*_, crowd) in enumerate(objects) if not crowd]
    groups = [list(rng.choice(whole, size, replace=False)) for size in (1, 1, 2, 2, 2, 3, 3)]
    held = {i: Counter((s, c) for o, s, c, crowd in objects if o == i and not crowd) for i in ids}
    wanted = [Counter(objects[int(row)][1:3] for row in group) for group in groups]
    slow = [[want <= held[i] for i in ids] for want in wanted]
    assert 0 < np.mean(slow) < 0.6
    assert holds_kinds_of(collection, groups, ids, by=["category", "color"]).tolist() == slow


def test_a_query_asks_about_known_objects_and_at_least_one(tmp_path):
    collection = make_collection(tmp_path, OBJECTS)
    with pytest.raises(ValueError, match="query 1 asks about no object"):
        holds_kinds_of(collection, [["0"], []], ["a"])
    for unknown in ("99", "5"):  # 5 is a crowd
        with pytest.raises(KeyError, match=rf"\['{unknown}'\]"):
            holds_kinds_of(collection, [["0", unknown]], ["a"])


def test_an_object_of_no_kind_cannot_be_asked_about(tmp_path):
    collection = make_collection(tmp_path, OBJECTS)
    collection.objects["color"] = pd.Series([None] + ["red"] * 5, dtype=object)
    with pytest.raises(KeyError, match=r"\['0'\]"):
        holds_kinds_of(collection, [["0"]], ["a"], by=["color"])
    assert holds_kinds_of(collection, [["1"]], ["a", "z"], by=["color"]).tolist() == [[True, False]]


def test_no_queries_have_no_answers(tmp_path):
    assert holds_kinds_of(make_collection(tmp_path, OBJECTS), [], ["a", "b"]).shape == (0, 2)
