"""Queries, and how images are ranked for them, against slow and plain counting."""

import numpy as np
import pytest

from regionlab.data.masks import mask_to_rle
from regionlab.search.exact import WINDOW, find_below_bounds, score_rows, top_k
from regionlab.search.query import Part, Query, make_query_vectors
from regionlab.search.scoring import (
    TERMS,
    Rol,
    Terms,
    best_of_each,
    bound_scores,
    box_iou,
    score_terms,
    spread,
)


def unit(*shape, seed=0):
    vectors = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


X, Y = np.array([1.0, 0.0]), np.array([0.0, 1.0])


# Parts and queries


def test_a_part_is_kept_as_float32_and_its_box_as_float64():
    part = Part([0.6, 0.8], [0, 0.25, 1, 0.5])
    assert part.vector.dtype == np.float32
    assert part.box.dtype == np.float64
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
        ("KeyError.'counts'. in {'size': ", {"rle": {"size": [2, 2]}}),
        ("the RLE of a part is none: TypeError", {"rle": "04"}),
        ("end in the middle of a number", {"rle": {"size": [2, 2], "counts": "o"}}),
        ("cover 5 pixels, not 4", {"rle": {"size": [2, 2], "counts": "05"}}),
        ("must hold a mask", {"rle": mask_to_rle(np.zeros((2, 2), bool))}),
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
    probes = make_query_vectors(query, "match")
    np.testing.assert_array_equal(probes.vectors, [X, Y, Y])
    np.testing.assert_allclose(probes.weights, [3 / 4, -2 / 4, 1 / 4])
    assert probes.of_part.tolist() == [0, 1, 2]


def test_the_mean_is_weighted_and_of_unit_length_and_leaves_unwanted_parts_alone():
    query = Query([Part(X, weight=-1), Part(X, weight=3), Part(-Y, weight=-2), Part(Y, weight=4)])
    probes = make_query_vectors(query, "mean")
    np.testing.assert_allclose(probes.vectors, [[3 / 5, 4 / 5], X, -Y], atol=1e-7)
    np.testing.assert_allclose(probes.weights, [1, -1 / 7, -2 / 7])
    assert probes.of_part.tolist() == [1, 0, 2, 0]


def test_parts_that_cancel_out_have_no_mean():
    with pytest.raises(ValueError, match="cancel each other out"):
        make_query_vectors(Query([Part(X), Part(-X)]), "mean")


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
    vectors = np.tile(unit(1, 192, seed=1), (1003, 1))
    for query in unit(7, 192):
        assert len(set(score_rows(vectors, query))) == 1


def test_the_best_of_each_images_regions():
    values = np.array([[1, 5, 2, 7], [4, 0, 3, 1]])
    offsets = np.array([0, 0, 3, 3, 4, 4])
    best = best_of_each(values, offsets, np.array([-1, -9]))
    assert best.tolist() == [[-1, 5, -1, 7, -1], [-9, 4, -9, 1, -9]]


def test_images_without_any_region_have_none_best():
    assert best_of_each(np.empty((1, 0)), np.array([0, 0, 0]), -1).tolist() == [[-1, -1]]


def test_the_regions_of_some_images_in_their_order():
    offsets = np.array([0, 2, 2, 5, 6])
    regions, local = spread(offsets, np.array([2, 0, 1, 2]))
    assert regions.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert local.tolist() == [0, 3, 5, 5, 8]
    regions, local = spread(offsets, np.array([], int))
    assert (regions.tolist(), local.tolist()) == ([], [0])


# The score and its bound

NONE = np.zeros((1, 1), np.float32)


def test_whole_and_region_are_weighed_for_wanted_and_unwanted_parts():
    vectors = make_query_vectors(Query([Part(X, weight=3), Part(Y, weight=-2), Part(Y)]), "match")
    whole = np.float32([[1, 0], [1, 0.5], [0, 1]])
    best = np.float32([[0.5, 1], [0, 1], [1, 0.5]])
    scores, terms = score_terms(vectors, whole, best, image_weight=0.25)
    parts = [[0.25 + 0.375, 0.75], [0.25, 0.125 + 0.75], [0.75, 0.25 + 0.375]]
    np.testing.assert_allclose(terms.similarity, np.array([3 / 4, 0, 1 / 4]) @ parts)
    np.testing.assert_allclose(terms.negative, np.array([0, -2 / 4, 0]) @ parts)
    np.testing.assert_allclose(scores, np.array([3 / 4, -2 / 4, 1 / 4]) @ parts)


def test_terms_are_weighted_and_sum_to_the_score():
    rng = np.random.default_rng(0)
    vectors = make_query_vectors(Query([Part(X, weight=3), Part(Y, weight=-2)]), "match")
    whole, best = rng.uniform(-1, 1, (2, 2, 40)).astype(np.float32)
    iou, rol = rng.random(40), Rol(0.7, 0.4)
    scores, terms = score_terms(vectors, whole, best, image_weight=0.4, rol=rol, iou=iou)
    np.testing.assert_allclose(scores, sum(vars(terms).values()), atol=1e-6)
    np.testing.assert_allclose(terms.iou, 0.4 * iou)
    plain, _ = score_terms(vectors, whole, best, image_weight=0.4)
    np.testing.assert_allclose(scores, 0.7 * plain + 0.4 * iou)
    assert list(vars(terms)) == list(TERMS) == ["similarity", "negative", "iou"]
    assert sum(vars(Terms()).values()) == -np.inf  # where there is no image


def test_an_image_weighs_the_same_alone_and_among_others():
    # numpy sums a lone column of eight or more parts in another order.
    vectors = make_query_vectors(
        Query([Part(v, weight=w) for v, w in zip(unit(11, 4), range(1, 12), strict=True)]), "match"
    )
    best = np.random.default_rng(0).normal(size=(11, 50)).astype(np.float32)
    _, together = score_terms(vectors, NONE, best, image_weight=0.0)
    alone = [
        score_terms(vectors, NONE, best[:, [i]], image_weight=0.0)[1].similarity[0]
        for i in range(50)
    ]
    assert together.similarity.tolist() == alone


@pytest.mark.parametrize("image_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_above_the_score_of_every_choice_of_regions(seed, image_weight):
    rng = np.random.default_rng(seed)
    weights = [1.5, *rng.uniform(-2, 2, 3)]
    parts = [Part(v, weight=w) for v, w in zip(unit(4, 3, seed=seed), weights, strict=True)]
    vectors = make_query_vectors(Query(parts), "match")
    whole = rng.uniform(-1, 1, (4, 200)).astype(np.float32)
    each = rng.uniform(-1, 1, (4, 200, 5)).astype(np.float32)
    highest = each.max(axis=2)
    rounding = rng.uniform(-1e-6, 1e-6, (2, 4, 200)).astype(np.float32)
    bound = bound_scores(
        vectors, whole + rounding[0], highest + rounding[1], image_weight=image_weight
    )
    chosen = rng.integers(0, 5, (4, 200, 1))
    best = np.take_along_axis(each, chosen, axis=2)[..., 0]
    best[~vectors.wanted] = highest[~vectors.wanted]
    for some in (best, highest):
        scores, _ = score_terms(vectors, whole, some, image_weight=image_weight)
        assert (scores <= bound).all()
    np.testing.assert_allclose(scores, bound, atol=1e-4)  # and no higher than it must be


# The best images


def find_slowly(scores, depth, excluded):
    order = np.argsort(-scores, kind="stable")
    return order[order != excluded][:depth]


@pytest.mark.parametrize("seed", range(8))
def test_the_best_are_found_below_bounds_as_by_sorting_all(seed):
    rng = np.random.default_rng(seed)
    n, slack = 500, 0.05
    scores = rng.integers(-20, 20, n).astype(np.float32) / 10  # many are equal
    bounds = scores + rng.uniform(-slack, 2, n) * (rng.random(n) < 0.5)
    for depth, excluded in ((1, -1), (10, int(scores.argmax())), (100, 3), (n, 7)):
        below = bounds + slack
        if excluded >= 0:
            below[excluded] = -np.inf
        found = find_below_bounds(
            below, lambda rows: {"scores": scores[rows], "pair": np.stack([rows, -rows])}, depth
        )
        expected = find_slowly(scores, depth, excluded)
        assert found["rows"].tolist() == expected.tolist()
        np.testing.assert_array_equal(found["scores"], scores[expected])
        np.testing.assert_array_equal(found["pair"], [expected, -expected])


def test_of_equal_images_the_first_are_the_best_though_all_have_the_same_bound():
    scores = np.zeros(300, np.float32)
    found = find_below_bounds(scores, lambda rows: {"scores": scores[rows]}, 5)
    assert found["rows"].tolist() == [0, 1, 2, 3, 4]


def test_only_images_that_may_be_among_the_best_are_looked_at():
    scores = unit(1, 20_000)[0]
    looked_at = []

    def look(rows):
        looked_at.extend(rows.tolist())
        return {"scores": scores[rows]}

    find_below_bounds(scores + 2e-6, look, 10)
    assert len(looked_at) == WINDOW
    looked_at.clear()
    loose = scores + np.random.default_rng(0).uniform(0, 0.01, len(scores))
    find_below_bounds(loose, look, 10)
    tenth = np.sort(scores)[-10]
    assert set(np.flatnonzero(loose >= tenth)) <= set(looked_at)
    assert WINDOW < len(looked_at) == len(set(looked_at)) < len(scores) / 4


def test_without_bounds_all_are_looked_at_in_one_go():
    looked_at = []

    def look(rows):
        looked_at.append(rows.tolist())
        return {"scores": np.zeros(len(rows), np.float32)}

    bounds = np.full(100, np.inf)
    bounds[1] = -np.inf
    found = find_below_bounds(bounds, look, 3)
    assert looked_at == [[0, *range(2, 100)]]
    assert found["rows"].tolist() == [0, 2, 3]


def test_where_the_only_image_is_left_out_there_is_none():
    found = find_below_bounds(np.full(1, -np.inf), lambda rows: {"scores": np.zeros(len(rows))}, 3)
    assert found["rows"].tolist() == []


@pytest.mark.parametrize("levels", [2, 10, 10_000])
def test_the_top_k_are_the_first_of_a_stable_sort(levels):
    scores = np.random.default_rng(levels).integers(0, levels, 300) / np.float32(levels)
    scores[:5] = -np.inf
    for k in (1, 2, 17, 299, 300, 1000):
        assert top_k(scores, k).tolist() == np.argsort(-scores, kind="stable")[:k].tolist()
    assert top_k(scores[:0], 3).tolist() == []


# Settings


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("alpha must be 0 or more, got -1", {"alpha": -1}),
        ("beta must be 0 or more, got nan", {"beta": np.nan}),
        ("beta must be 0 or more, got inf", {"beta": np.inf}),
        ("alpha and beta are both 0", {"alpha": 0}),
        ("region must be one of 'similar', 'overlap', 'whole', got 'best'", {"region": "best"}),
        ("candidates must be a whole number of at least 1, got 0", {"candidates": 0}),
        ("candidates must be a whole number of at least 1, got 2.5", {"candidates": 2.5}),
        ("overlap must be one of 'box', 'mask', got 'rle'", {"overlap": "rle"}),
    ],
)
def test_settings_that_mean_nothing_are_refused(message, settings):
    with pytest.raises(ValueError, match=message):
        Rol(**settings)
