"""Queries, and how well regions answer their parts, against slow and plain counting."""

from itertools import permutations

import numpy as np
import pytest

from regionlab import ranking
from regionlab.query import Part, Query, make_probes
from regionlab.ranking import (
    UNMATCHED,
    BestRegions,
    Rol,
    best_of_each,
    box_iou,
    cosines,
    find_best,
    match_parts,
)


def unit(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


X, Y = np.array([1.0, 0.0]), np.array([0.0, 1.0])


# Parts and queries


def test_a_part_is_kept_as_float32_and_its_box_as_float64():
    part = Part([0.6, 0.8], [0, 0.25, 1, 0.5], size=np.array([30, 40]))
    assert part.vector.dtype == np.float32
    assert part.box.dtype == np.float64
    assert part.size == (30, 40)
    assert (part.weight, part.label) == (1.0, "")


def test_a_part_does_not_change_with_the_array_it_was_made_from():
    vector = np.array([1, 0], np.float32)
    part = Part(vector)
    vector[:] = 0
    assert part.vector.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"must be \(d,\), got \(1, 2\)", {"vector": [[1, 0]]}),
        ("must be of length 1, got 2", {"vector": [2, 0]}),
        ("must be of length 1, got nan", {"vector": [np.nan, 0]}),
        (r"must be \(4,\) XYXY, got \(2,\)", {"box": [0, 1]}),
        (r"must be in \[0, 1\]", {"box": [0, 0, 1, 1.01]}),
        (r"must be in \[0, 1\]", {"box": [-0.1, 0, 1, 1]}),
        (r"must be in \[0, 1\]", {"box": [0, 0, 1, np.nan]}),
        ("with an area above 0", {"box": [0.5, 0, 0.5, 1]}),
        ("with an area above 0", {"box": [0, 0.9, 1, 0.1]}),
        ("finite and not 0, got 0", {"weight": 0}),
        ("finite and not 0, got inf", {"weight": np.inf}),
        ("finite and not 0, got nan", {"weight": np.nan}),
        (r"\(height, width\), got \(30, 0\)", {"size": (30, 0)}),
        (r"\(height, width\), got 30", {"size": 30}),
        (r"\(height, width\), got \(1.5, 2\)", {"size": (1.5, 2)}),
    ],
)
def test_a_bad_part_is_told_why(message, arguments):
    with pytest.raises(ValueError, match=message):
        Part(**{"vector": [1, 0]} | arguments)


@pytest.mark.parametrize("parts", [[], [Part(X, weight=-1)], [Part(X, weight=-1)] * 2])
def test_a_query_must_want_something(parts):
    with pytest.raises(ValueError, match=f"none of the {len(parts)} parts .* positive weight"):
        Query(parts)


def test_parts_of_different_spaces_make_no_query():
    with pytest.raises(ValueError, match=r"vectors of different lengths: \[2, 3\]"):
        Query([Part(X), Part(np.array([1, 0, 0]))])


def test_a_query_is_called_after_its_parts():
    parts = [Part(X, label="chair"), Part(Y, label="table"), Part(X, None, -1, "lamp")]
    assert Query(parts).label == "chair + table - lamp"
    assert Query(parts[::-1]).label == "- lamp + table + chair"
    assert Query(parts, "a room").label == "a room"
    assert Query([*parts, Part(Y)]).label == ""


# Probes: a query's parts or their mean


def test_each_part_is_a_probe_and_wanted_weights_sum_to_one():
    query = Query([Part(X, weight=3), Part(Y, weight=-2), Part(Y)])
    probes = make_probes(query, "match")
    np.testing.assert_array_equal(probes.vectors, [X, Y, Y])
    np.testing.assert_allclose(probes.weights, [3 / 4, -2 / 4, 1 / 4])
    assert probes.of_part.tolist() == [0, 1, 2]


def test_the_mean_is_weighted_and_of_unit_length_and_leaves_unwanted_parts_alone():
    query = Query([Part(X, weight=-1), Part(X, weight=3), Part(-Y, weight=-2), Part(Y, weight=4)])
    probes = make_probes(query, "mean")
    np.testing.assert_allclose(probes.vectors, [[3 / 5, 4 / 5], X, -Y], atol=1e-7)
    np.testing.assert_allclose(probes.weights, [1, -1 / 7, -2 / 7])
    assert probes.of_part.tolist() == [1, 0, 2, 0]


def test_parts_that_cancel_out_have_no_mean():
    with pytest.raises(ValueError, match="cancel each other out"):
        make_probes(Query([Part(X), Part(-X)]), "mean")


# Boxes


def iou_by_pixels(a, b, size=12):
    def paint(box):
        grid = np.zeros((size, size), bool)
        x0, y0, x1, y1 = box
        grid[y0:y1, x0:x1] = True
        return grid

    a, b = paint(a), paint(b)
    return (a & b).sum() / (a | b).sum()


def test_iou_is_that_of_counted_pixels():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 12, (40, 2, 2)), axis=1)
    corners[:, 1] += 1
    boxes = corners.reshape(-1, 4)
    a, b = boxes[:15], boxes[15:]
    expected = [[iou_by_pixels(one, other) for other in b] for one in a]
    np.testing.assert_allclose(box_iou(a, b), expected)


def test_iou_by_hand():
    box = [[0, 0, 2, 2]]
    others = [[1, 1, 3, 3], [0, 0, 2, 2], [2, 0, 4, 2], [5, 5, 6, 6], [0, 0, 0, 0]]
    assert box_iou(box, others).tolist() == [[1 / 7, 1, 0, 0, 0]]
    assert box_iou([[1, 1, 1, 1]], [[1, 1, 1, 1]]).tolist() == [[0]]


# Regions of images


def test_equal_vectors_score_equally_wherever_they_stand():
    # A matrix product fails this: it rounds the last rows of a block differently.
    probes = make_probes(Query([Part(vector) for vector in unit(7, 192)]), "match")
    found = cosines(probes, np.tile(unit(1, 192, seed=1), (1003, 1)))
    assert (found == found[:, :1]).all()


def test_the_best_of_each_images_regions():
    values = np.array([[1, 5, 2, 7], [4, 0, 3, 1]])
    offsets = np.array([0, 0, 3, 3, 4, 4])
    best = best_of_each(values, offsets, np.array([-1, -9]))
    assert best.tolist() == [[-1, 5, -1, 7, -1], [-9, 4, -9, 1, -9]]


def test_images_without_any_region_have_none_best():
    assert best_of_each(np.empty((1, 0)), np.array([0, 0, 0]), -1).tolist() == [[-1, -1]]


def match_slowly(similarity, weights):
    """The score of every way to give each part a region of its own, or none."""
    m, r = similarity.shape
    padded = np.hstack([similarity, np.full((m, m), UNMATCHED)])
    return max(weights @ padded[np.arange(m), list(way)] for way in permutations(range(r + m), m))


@pytest.mark.parametrize("seed", range(20))
def test_matching_is_the_best_of_all_assignments(seed):
    rng = np.random.default_rng(seed)
    m, r = rng.integers(1, 4), rng.integers(1, 4)
    similarity, weights = rng.uniform(-1, 1, (m, r)), rng.uniform(0.1, 3, m)
    found = match_parts(similarity, weights)
    held = found[found >= 0]
    assert len(set(held)) == len(held) == min(m, r)
    value = np.where(found >= 0, similarity[np.arange(m), found], UNMATCHED)
    np.testing.assert_allclose(weights @ value, match_slowly(similarity, weights))


def test_a_lone_region_goes_to_the_part_that_would_miss_it_most():
    # To the first part: 1 * 0.9 - 3 = -2.1. To the second: -1 + 3 * -0.2 = -1.6.
    similarity = np.array([[0.9], [-0.2]])
    assert match_parts(similarity, np.array([1.0, 3.0])).tolist() == [-1, 0]
    assert match_parts(similarity, np.array([1.0, 1.0])).tolist() == [0, -1]


def best_regions(query, regions, counts, several="match"):
    probes = make_probes(Query(query), several)
    return BestRegions(probes, np.asarray(regions, np.float32), np.cumsum([0, *counts]))


def test_an_image_is_open_where_two_wanted_parts_share_their_best_region():
    regions = [X, Y, [0.6, 0.8], X, Y]
    best = best_regions([Part(X), Part(Y), Part(X, weight=-1)], regions, [2, 0, 1, 2])
    assert best.open.tolist() == [False, False, True, False]
    np.testing.assert_allclose(best.similarity, [[1, -1, 0.6, 1], [1, -1, 0.8, 1], [1, 1, 0.6, 1]])
    assert best.rows.tolist() == [[0, -1, 2, 3], [1, -1, 2, 4], [0, -1, 2, 3]]


def test_matching_closes_an_image_and_leaves_unwanted_parts_alone():
    best = best_regions([Part(X), Part(X, weight=-1), Part(X)], [X, [0.6, 0.8], X], [2, 1])
    assert best.open.tolist() == [True, True]
    best.match(np.array([0]))
    assert best.open.tolist() == [False, True]
    np.testing.assert_allclose(best.similarity[:, 0], [1, 1, 0.6])
    assert best.rows[:, 0].tolist() == [0, 0, 1]
    best.match(np.array([1]))
    assert best.similarity[:, 1].tolist() == [1, 1, UNMATCHED]
    assert best.rows[:, 1].tolist() == [2, 2, -1]


def test_of_equal_regions_the_first_is_the_evidence():
    best = best_regions([Part(X)], [Y, X, X], [3])
    assert best.rows.tolist() == [[1]]


def test_only_images_that_may_be_among_the_best_are_matched(monkeypatch):
    matched = []

    def count(similarity, weights):
        matched.append(1)
        return match_parts(similarity, weights)

    monkeypatch.setattr(ranking, "match_parts", count)
    vectors, regions = unit(2, 8, seed=1), unit(4000, 8, seed=2)
    vectors[1] = (vectors[0] + 0.3 * vectors[1]) / np.linalg.norm(vectors[0] + 0.3 * vectors[1])
    parts = [Part(vector) for vector in vectors]
    images = unit(400, 8, seed=3)
    counts = {}
    for depth in (1, 400):
        matched.clear()
        best = best_regions(parts, regions, [10] * 400)
        was_open = best.open.sum()
        probes = make_probes(Query(parts), "match")
        counts[depth], _, _ = find_best(probes, images, best, share=0.0, depth=depth)
        assert len(matched) == (was_open if depth == 400 else pytest.approx(32, abs=32))
    assert was_open > 200
    assert counts[1][0] == counts[400][0]


# Settings


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("alpha must be 0 or more, got -1", {"alpha": -1}),
        ("beta must be 0 or more, got nan", {"beta": np.nan}),
        ("beta must be 0 or more, got inf", {"beta": np.inf}),
        ("alpha and beta are both 0", {"alpha": 0}),
        ("region must be one of 'similar', 'overlap', 'whole', got 'best'", {"region": "best"}),
        ("frame must be one of 'image', 'pixels', got 'world'", {"frame": "world"}),
        ("candidates must be a whole number of at least 1, got 0", {"candidates": 0}),
        ("candidates must be a whole number of at least 1, got 2.5", {"candidates": 2.5}),
    ],
)
def test_settings_that_mean_nothing_are_refused(message, settings):
    with pytest.raises(ValueError, match=message):
        Rol(**settings)
