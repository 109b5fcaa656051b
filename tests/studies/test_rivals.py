"""The object or its background: rivals drawn, and where rankings put them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regionlab.data.collection import Collection, make_table
from regionlab.index.index import Index
from regionlab.search.images import Ranking
from regionlab.search.regions import RegionRanking
from regionlab.studies.sampling import drop_images, find_ranks, sample_background_triplets


def make_collection(grounds, things):
    """Images by their grounds, and objects 0, 1, ... given as (image, category, color)."""
    n = len(things)
    images, categories, colors = zip(*things, strict=True)
    return Collection(
        Path("photos"),
        make_table("images", {"image_id": list(grounds), "path": [f"{i}.png" for i in grounds],
                              "width": [9] * len(grounds), "height": [9] * len(grounds),
                              "ground": list(grounds.values())}),
        make_table("objects", {"object_id": [str(i) for i in range(n)], "image_id": images,
                               "category": categories, "color": colors,
                               "x0": [0] * n, "y0": [0] * n, "x1": [1] * n, "y1": [1] * n,
                               "area": [1] * n, "iscrowd": [False] * n,
                               "segmentation": [None] * n}),
    )  # fmt: skip


def make_ranking(rows):
    rows = np.array(rows)
    scores = -np.arange(rows.size, dtype=np.float32).reshape(rows.shape)
    names = [f"image {row}" for row in range(int(rows.max()) + 1)]
    index = Index(
        Path("index"),
        {},
        Path("photos"),
        pd.DataFrame({"image_id": names, "path": names}),
        np.eye(len(names), dtype=np.float32),
        pd.DataFrame(),
    )
    return Ranking(index, [str(q) for q in range(len(rows))], rows, scores, np.full(len(rows), -1))


# Triples


def test_the_right_rival_has_the_object_and_the_wrong_one_the_ground():
    collection = make_collection(
        {"query": "sand", "right": "snow", "wrong": "sand", "both": "sand", "neither": "snow"},
        [("query", "star", "red"), ("right", "star", "red"), ("wrong", "ring", "red"),
         ("both", "star", "red"), ("neither", "ring", "red")],
    )  # fmt: skip
    triples = sample_background_triplets(collection, collection.objects.iloc[[0]], seed=0)
    assert triples.to_dict("records") == [
        {"object_id": "0", "image_id": "query", "right": "right", "wrong": "wrong"}
    ]


def test_an_empty_image_of_the_ground_is_a_wrong_rival():
    collection = make_collection(
        {"query": "sand", "right": "snow", "empty": "sand"},
        [("query", "star", "red"), ("right", "star", "red")],
    )
    triples = sample_background_triplets(collection, collection.objects.iloc[[0]], seed=0)
    assert triples["wrong"].tolist() == ["empty"]


def test_more_columns_make_narrower_kinds():
    collection = make_collection(
        {"query": "sand", "blue": "snow", "red": "snow", "wrong": "sand"},
        [("query", "star", "red"), ("blue", "star", "blue"), ("red", "star", "red"),
         ("wrong", "star", "blue")],
    )  # fmt: skip
    asked = collection.objects.iloc[[0]]
    for seed in range(5):
        triples = sample_background_triplets(collection, asked, seed=seed, by=["category", "color"])
        assert triples[["right", "wrong"]].to_numpy().tolist() == [["red", "wrong"]]
    assert sample_background_triplets(collection, asked, seed=0).empty  # every image holds a star


def test_objects_without_a_rival_are_left_out():
    collection = make_collection(
        {"a": "sand", "b": "sand", "c": "snow"},
        [("a", "star", "red"), ("b", "ring", "red"), ("c", "ring", "red")],
    )
    triples = sample_background_triplets(collection, collection.objects, seed=0)
    assert triples.to_numpy().tolist() == [["1", "b", "c", "a"]]


def test_every_rival_may_be_drawn_and_the_seed_decides():
    rng = np.random.default_rng(0)
    grounds = {f"i{n}": ("sand", "snow")[n % 2] for n in range(12)}
    things = [(image, ("star", "ring")[int(rng.integers(2))], "red") for image in grounds]
    collection = make_collection(grounds, things)
    category = {image: kind for image, kind, _ in things}
    drawn = [
        sample_background_triplets(collection, collection.objects.iloc[[0]], seed=s)
        for s in range(60)
    ]
    right = {i for i in grounds if category[i] == category["i0"] and grounds[i] == "snow"}
    wrong = {i for i in grounds if category[i] != category["i0"] and grounds[i] == "sand"}
    assert {table["right"].item() for table in drawn} == right
    assert {table["wrong"].item() for table in drawn} == wrong
    assert min(len(right), len(wrong)) > 1
    assert sample_background_triplets(collection, collection.objects.iloc[[0]], seed=7).equals(
        drawn[7]
    )


def test_images_of_unknown_ground_are_no_rivals():
    collection = make_collection(
        {"unknown": None, "query": "snow", "wrong": "snow", "right": "sand"},
        [("unknown", "star", "red"), ("query", "star", "red"), ("right", "star", "red")],
    )
    for seed in range(5):
        triples = sample_background_triplets(collection, collection.objects.iloc[[0, 1]], seed=seed)
        assert triples.to_numpy().tolist() == [["1", "query", "right", "wrong"]]


def test_images_need_a_column_for_the_ground():
    collection = make_collection({"a": "sand"}, [("a", "star", "red")])
    with pytest.raises(ValueError, match="have no column 'backdrop'"):
        sample_background_triplets(collection, collection.objects, seed=0, ground="backdrop")


# Ranks


def test_ranks_count_from_one():
    ranking = make_ranking([[2, 0, 1, -1], [1, 2, 3, 0]])
    ranks = find_ranks(ranking, [0, 0, 1, 1], ["image 2", "image 1", "image 3", "image 0"])
    assert ranks.tolist() == [1, 3, 3, 4]
    assert find_ranks(ranking, [], []).tolist() == []


def test_an_image_that_is_not_ranked_has_no_rank():
    ranking = make_ranking([[2, 0, 1, -1], [1, 2, 3, 0]])
    with pytest.raises(ValueError, match="image 'image 3' is not among the 4 ranked"):
        find_ranks(ranking, [1, 0], ["image 3", "image 3"])
    with pytest.raises(KeyError, match="no image 'image 9'"):
        find_ranks(ranking, [0], ["image 9"])


# Leaving images out


def test_the_others_move_up_where_an_image_is_left_out():
    ranking = make_ranking([[2, 0, 1, 3], [1, 2, 3, 0]])
    left = drop_images(ranking, np.array([[True, False, True, False], [False] * 4]))
    assert left.rows.tolist() == [[1, 3, -1, -1], [1, 2, 3, 0]]
    assert left.scores.tolist() == [[-2, -3, -np.inf, -np.inf], [-4, -5, -6, -7]]
    assert left.scores.dtype == np.float32
    assert ranking.rows.tolist()[0] == [2, 0, 1, 3]


def test_places_that_were_empty_stay_so():
    ranking = make_ranking([[3, 1, -1, -1]])
    left = drop_images(ranking, np.array([[False, False, False, True]]))
    assert left.rows.tolist() == [[1, -1, -1, -1]]


def test_a_ranking_with_evidence_leaves_it_behind():
    plain = make_ranking([[1, 0]])
    ranking = RegionRanking(
        plain.index, plain.queries, plain.rows, plain.scores, np.array([1]),
        np.zeros((1, 2, 1), int), {},
    )  # fmt: skip
    left = drop_images(ranking, np.array([[True, False]]))
    assert type(left) is Ranking
    assert (left.rows.tolist(), left.excluded.tolist()) == ([[1, -1]], [1])
