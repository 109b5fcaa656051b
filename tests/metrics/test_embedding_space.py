"""The space that queries lie in: cosines with targets and others, and effective rank."""

import numpy as np
import pytest

from regionlab.compose.benchmark import Cosines, effective_rank, measure_cosines


def draw_units(rng, n, d=4):
    vectors = rng.standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# Separation


def separate_slowly(targets, others):
    wins = [1.0 if t > o else 0.5 if t == o else 0.0 for t in targets for o in others]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("seed", range(3))
def test_separation_is_that_of_a_slow_double_loop(seed):
    rng = np.random.default_rng(seed)
    targets = (rng.integers(2, 9, 40) / 8).astype(np.float32)  # with many ties
    others = (rng.integers(0, 7, 90) / 8).astype(np.float32)
    assert np.isin(targets, others).any()
    expected = separate_slowly(targets, others)
    assert Cosines(targets, others).separation == pytest.approx(expected, abs=1e-12)


def test_separation_by_hand():
    others = np.array([0.1, 0.3, 0.3, 0.5])
    assert Cosines(np.array([0.3]), others).separation == (1 + 2 / 2) / 4
    assert Cosines(np.array([0.6, 0.5]), others).separation == (4 + 3.5) / 8
    assert Cosines(np.array([0.9]), others).separation == 1
    assert Cosines(np.array([0.0]), others).separation == 0


# Cosines


def test_cosines_are_with_the_own_target_and_with_neither_target_nor_reference():
    gallery = np.eye(4, dtype=np.float32)
    targets, references = np.array([1, 0, 3]), np.array([0, 2, 2])
    composed = np.array([[0.6, 0.8, 0, 0], [0.8, 0, 0.6, 0], [0, 0, 0.6, 0.8]], np.float32)
    found = measure_cosines(composed, gallery, targets, references, others=30)
    np.testing.assert_allclose(found.targets, [0.8, 0.8, 0.8])
    np.testing.assert_array_equal(found.others, np.zeros(90))


def test_every_other_image_is_drawn_equally_often():
    gallery = np.diag([1, 2, 3, 4, 5]).astype(np.float32)  # the cosine tells the row
    composed = np.ones((2, 5), np.float32)
    targets, references = np.array([4, 1]), np.array([2, 0])
    others = measure_cosines(composed, gallery, targets, references, others=6000).others
    for query, rows in ((0, {1, 2, 4}), (1, {3, 4, 5})):
        values, counts = np.unique(others.reshape(2, -1)[query], return_counts=True)
        assert set(values) == rows
        np.testing.assert_allclose(counts / 6000, 1 / 3, atol=0.03)


def test_the_seed_decides_the_draw():
    rng = np.random.default_rng(0)
    arrays = (draw_units(rng, 5), draw_units(rng, 30), np.arange(5), np.arange(5, 10))
    first = measure_cosines(*arrays, seed=1)
    assert len(first.targets) == 5
    assert len(first.others) == 5 * 50
    np.testing.assert_array_equal(first.others, measure_cosines(*arrays, seed=1).others)
    assert not np.array_equal(first.others, measure_cosines(*arrays, seed=2).others)


def test_a_gallery_of_target_and_reference_alone_is_refused():
    gallery = np.eye(2, dtype=np.float32)
    with pytest.raises(ValueError, match="a gallery of 2 images has none but"):
        measure_cosines(gallery[:1], gallery, np.array([0]), np.array([1]))


# Effective rank


@pytest.mark.parametrize("d", [2, 3, 8])
def test_an_orthonormal_frame_spreads_over_one_direction_less_than_it_has_vectors(d):
    assert effective_rank(np.eye(d)) == pytest.approx(d - 1)


@pytest.mark.parametrize("d", [2, 5])
def test_a_frame_and_its_opposite_spread_over_all_directions(d):
    assert effective_rank(np.concatenate([np.eye(d), -np.eye(d)])) == pytest.approx(d)


def test_a_line_is_one_direction_wherever_it_lies():
    steps = np.linspace(-1, 3, 7)[:, None]
    assert effective_rank(5 + steps * np.array([[1.0, -2.0, 0.5]])) == pytest.approx(1)


def test_two_directions_of_unequal_size_by_hand():
    vectors = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])  # singular values as 3 to 1
    entropy = -(3 / 4 * np.log(3 / 4) + 1 / 4 * np.log(1 / 4))
    assert effective_rank(vectors) == pytest.approx(np.exp(entropy))


def test_size_and_rotation_do_not_matter():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 4)) * [4, 2, 1, 1]
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    assert effective_rank(7 * vectors @ rotation) == pytest.approx(effective_rank(vectors))


def test_equal_vectors_are_refused():
    with pytest.raises(ValueError, match="all vectors are equal"):
        effective_rank(np.ones((4, 3)))
