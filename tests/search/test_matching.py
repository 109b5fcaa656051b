"""Regions matched with the parts of a query, against every assignment and one image at a time."""

from itertools import permutations

import numpy as np
import pytest

from regionlab.search import scoring
from regionlab.search.query import Part, Query, make_query_vectors
from regionlab.search.scoring import UNMATCHED, choose_regions, match_parts

X = np.array([1.0, 0.0])


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


# Many images at once


def draw_images(seed, m, *, levels=None, images=150, most=8):
    """Similarities (m, c, r), -inf behind the last region; of few levels, they often tie."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, most, images)
    similarity = rng.uniform(-1, 1, (m, images, most))
    if levels:
        similarity = rng.integers(0, levels, similarity.shape) / levels
    similarity[:, np.arange(most) >= counts[:, None]] = -np.inf
    weights = rng.uniform(0.1, 3, m) if seed % 2 else np.full(m, 1 / m)
    return similarity.astype(np.float32), counts, weights


@pytest.mark.parametrize("levels", [None, 2, 5])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_many_images_are_matched_as_one_by_one_ties_included(seed, m, levels):
    similarity, counts, weights = draw_images(seed, m, levels=levels)
    vectors = make_query_vectors(Query([Part(X, weight=w) for w in weights]), "match")
    best, chosen = choose_regions(similarity, counts, vectors)
    for image, count in enumerate(counts):
        held = similarity[:, image, :count]
        own = held.argmax(axis=1) if count else np.full(m, -1)
        if count and len(set(own)) < m:
            own = match_parts(held, vectors.weights)
        assert chosen[:, image].tolist() == own.tolist()
        if count <= 4 and m <= 3:
            value = vectors.weights @ best[:, image].astype(float)
            np.testing.assert_allclose(value, match_slowly(held, vectors.weights), atol=1e-6)


# What the vectors of a query get


def choose(parts, similarity, counts):
    vectors = make_query_vectors(Query(parts), "match")
    return choose_regions(np.float32(similarity), np.array(counts), vectors)


def test_where_the_best_regions_differ_there_is_nothing_to_match(monkeypatch):
    monkeypatch.setattr(scoring, "match_parts", None)
    best, chosen = choose([Part(X)] * 2, [[[0.1, 0.9]], [[0.7, 0.3]]], [2])
    np.testing.assert_allclose(best, [[0.9], [0.7]])
    assert chosen.tolist() == [[1], [0]]


def test_only_images_where_wanted_parts_share_their_best_region_are_matched(monkeypatch):
    asked, original = [], scoring.match_parts

    def watch(similarity, weights):
        asked.append((similarity.tolist(), weights.tolist()))
        return original(similarity, weights)

    monkeypatch.setattr(scoring, "match_parts", watch)
    parts = [Part(X), Part(X, weight=-1), Part(X, weight=3)]
    similarity = [
        [[0.5, 0.25], [0.5, 0.25]],
        [[0.5, 0.25], [0.5, 0.25]],
        [[0.75, 0.25], [0.25, 0.75]],
    ]
    best, chosen = choose(parts, similarity, [2, 2])
    assert asked == [([[0.5, 0.25], [0.75, 0.25]], [0.25, 0.75])]
    assert chosen.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert best.tolist() == [[0.25, 0.5], [0.5, 0.5], [0.75, 0.75]]


def test_what_finds_no_region_is_as_bad_as_can_be():
    none = -np.inf
    parts = [Part(X), Part(X, weight=-1), Part(X, weight=2)]
    similarity = [[[none], [0.5]], [[none], [0.25]], [[none], [0.5]]]
    best, chosen = choose(parts, similarity, [0, 1])
    assert best.tolist() == [[UNMATCHED, UNMATCHED], [1, 0.25], [UNMATCHED, 0.5]]
    assert chosen.tolist() == [[-1, -1], [-1, 0], [-1, 0]]


def test_of_equal_regions_the_first_is_the_evidence():
    _, chosen = choose([Part(X)], [[[0.1, 0.9, 0.9]]], [3])
    assert chosen.tolist() == [[1]]
