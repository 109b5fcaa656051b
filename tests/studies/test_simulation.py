"""Simulated users: their boxes stay near the thing, their clicks on it."""

import numpy as np
import pytest

from regionlab.data.masks import mask_to_box
from regionlab.studies.sampling import jitter_box, sample_inside_point

SIZE = (40, 60)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def mask():
    mask = np.zeros(SIZE, bool)
    mask[5:12, 20:50] = True
    mask[8, 30] = False
    return mask


def test_box_is_tight_with_right_and_bottom_exclusive(mask):
    np.testing.assert_array_equal(mask_to_box(mask), [20, 5, 50, 12])


@pytest.mark.parametrize("act", [mask_to_box, lambda m: sample_inside_point(m, None)])
def test_empty_mask_is_refused(act):
    with pytest.raises(ValueError, match="no pixels"):
        act(np.zeros(SIZE, bool))


def test_jitter_is_a_tenth_of_each_side(rng):
    box = np.array([200.0, 300.0, 260.0, 400.0])
    drawn = np.array([jitter_box(box, (1000, 1000), rng) for _ in range(4000)])
    np.testing.assert_allclose(drawn.mean(0), box, atol=0.6)
    np.testing.assert_allclose(drawn.std(0), [6, 10, 6, 10], rtol=0.08)  # 10 is cut at 20


def test_jitter_moves_no_side_by_more_than_20_pixels(rng):
    box = np.array([300.0, 300.0, 700.0, 700.0])
    drawn = np.array([jitter_box(box, (1000, 1000), rng) for _ in range(500)])
    assert np.abs(drawn - box).max() == 20


def test_without_noise_the_box_stays(rng):
    box = np.array([3.0, 4.0, 30.0, 20.0])
    np.testing.assert_array_equal(jitter_box(box, SIZE, rng, noise=0), box)


@pytest.mark.parametrize("box", [(0, 0, 60, 40), (59, 39, 60, 40), (10, 10, 11, 11)])
def test_jittered_box_stays_in_the_image_and_has_an_area(rng, box):
    for _ in range(300):
        x0, y0, x1, y1 = jitter_box(np.array(box, float), SIZE, rng, noise=0.8)
        assert 0 <= x0 and x0 + 1 <= x1 <= 60 and 0 <= y0 and y0 + 1 <= y1 <= 40


def test_clicks_fall_on_every_pixel_of_the_mask_and_no_other(mask, rng):
    clicks = np.array([sample_inside_point(mask, rng) for _ in range(5000)])
    hit = np.zeros(SIZE, bool)
    hit[clicks[:, 1].astype(int), clicks[:, 0].astype(int)] = True
    np.testing.assert_array_equal(hit, mask)
    assert set((clicks % 1).ravel()) == {0.5}
