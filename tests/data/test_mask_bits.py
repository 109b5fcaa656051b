"""Masks kept as bits, and regions that hold them."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from regionlab.data.masks import MaskBits
from regionlab.data.prompts import Text
from regionlab.models.segmenter import Region


def make_mask(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width)) < 0.3


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (3, 3), (8, 8), (5, 13), (64, 48)])
def test_a_mask_comes_back_as_it_was(height, width):
    mask = make_mask(height, width)
    bits = MaskBits(mask)
    back = bits.unpack()
    np.testing.assert_array_equal(back, mask)
    assert (back.dtype, bits.shape, bits.area) == (bool, (height, width), mask.sum())


def test_a_mask_that_is_a_view_is_read_in_its_own_order():
    mask = make_mask(6, 9)
    np.testing.assert_array_equal(MaskBits(mask.T[::-1]).unpack(), mask.T[::-1])


def test_bits_are_equal_if_the_masks_are():
    mask = make_mask(6, 4)
    other = mask.copy()
    other[5, 3] ^= True
    assert MaskBits(mask) == MaskBits(mask.copy())
    assert hash(MaskBits(mask)) == hash(MaskBits(mask.copy()))
    assert MaskBits(mask) != MaskBits(other)
    assert MaskBits(mask) != MaskBits(mask.reshape(4, 6))  # the same bits in another shape
    assert MaskBits(mask) != mask.tobytes()


def test_a_large_mask_takes_a_hundredth_of_its_bits():
    y, x = np.ogrid[:2000, :3000]
    mask = (y - 1000) ** 2 + (x - 1500) ** 2 < 800**2
    assert len(pickle.dumps(MaskBits(mask))) < mask.size / 8 / 20


def test_a_region_is_not_changed_through_a_mask_it_was_made_of_or_gave():
    mask = make_mask(6, 4)
    region, before = Region(mask), mask.copy()
    mask[:] = True
    region.mask[:] = False
    np.testing.assert_array_equal(region.mask, before)
    assert (region.area, region.mask_bits.shape) == (before.sum(), (6, 4))


def test_a_region_may_be_made_of_bits_and_copied_with_another_prompt():
    mask = make_mask(6, 4)
    region = replace(Region(MaskBits(mask), quality=0.5), prompt=Text("a cup"))
    np.testing.assert_array_equal(region.mask, mask)
    assert (region.quality, region.prompt) == (0.5, Text("a cup"))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(region)).mask, mask)
