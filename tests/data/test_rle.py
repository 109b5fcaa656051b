"""Masks and COCO's encodings of them, against pycocotools and by hand."""

import warnings

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from regionlab.data.masks import check_rle, mask_to_rle, rle_to_mask, segmentation_to_rle


def random_masks():
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (1, 7), (7, 1), (13, 40), (200, 150)]:
        for share in (0, 0.02, 0.5, 0.98, 1):
            yield rng.random((height, width)) < share


def decode_with_pycocotools(rle):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own, with numpy 2
        return coco_mask.decode(rle).astype(bool)


def test_mask_comes_back_from_rle():
    for mask in random_masks():
        np.testing.assert_array_equal(rle_to_mask(mask_to_rle(mask)), mask)


def test_rle_decodes_as_pycocotools_decodes_it():
    for mask in random_masks():
        rle = mask_to_rle(mask)
        np.testing.assert_array_equal(rle_to_mask(rle), decode_with_pycocotools(rle))


def test_runs_go_down_the_columns():
    rle = segmentation_to_rle({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)
    assert rle_to_mask(rle).tolist() == [[False, True, False], [True, False, False]]


def test_compressed_rle_passes_unchanged():
    rle = mask_to_rle(np.eye(5, dtype=bool))
    assert isinstance(rle["counts"], str)
    assert segmentation_to_rle(rle, 5, 5) == rle


def test_polygon_covers_the_pixels_inside():
    mask = rle_to_mask(segmentation_to_rle([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6))
    expected = np.zeros((5, 6), dtype=bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(mask, expected)


def test_several_polygons_are_one_mask():
    left, right = [0, 0, 2, 0, 2, 2, 0, 2], [4, 0, 6, 0, 6, 2, 4, 2]
    assert rle_to_mask(segmentation_to_rle([left, right], 2, 6)).sum() == 2 * 4


def test_polygon_that_leaves_the_image_is_cut_at_its_edge():
    assert rle_to_mask(segmentation_to_rle([[-9, -9, 99, -9, 99, 99, -9, 99]], 4, 4)).all()


def test_polygons_of_fewer_than_three_points_are_left_out():
    square = [0, 0, 2, 0, 2, 2, 0, 2]
    assert rle_to_mask(segmentation_to_rle([[3, 3, 5, 5], square], 6, 6)).sum() == 4


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "no segmentation"),
        ([], "no segmentation"),
        ([[0, 0, 1, 1]], "three points"),
        ([[0, 0, 1, 0, 1]], "x, y"),
        ([[0, 0, 1, 0, 1, float("nan")]], "x, y"),
        ([0, 0, 1, 0, 1, 1], "x, y"),
        ([["a", "b"]], "list of numbers"),
        ({"size": [4, 5], "counts": [20]}, r"\[4, 5\] is not \[4, 4\]"),
        ({"counts": [16]}, "size None"),
        ({"size": [4, 4]}, "counts"),
        ({"size": [4, 4], "counts": [5, 3]}, "cover 8 pixels"),
        ({"size": [4, 4], "counts": [5, 30]}, "cover 35 pixels"),
        ({"size": [4, 4], "counts": [20, -4]}, "-4"),
        ({"size": [4, 4], "counts": [15.5, 0.5]}, "15.5"),
        ({"size": [4, 4], "counts": "zzzz"}, "'z', which is no letter"),
        ({"size": [4, 4], "counts": "53"}, "cover 8 pixels"),
        ({"size": [4, 4], "counts": b"`0P"}, "middle of a number"),
        ({"size": [4, 4], "counts": b"\xff"}, "no letter"),
    ],
)
def test_broken_segmentation_is_refused(segmentation, message):
    with pytest.raises(ValueError, match=message):
        segmentation_to_rle(segmentation, 4, 4)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "cover 0 pixels"),
        ("53", "cover 8 pixels"),
        ("5é", "'é', which is no letter"),
        ("`0P", "middle of a number"),
    ],
)
def test_rle_that_does_not_fill_the_mask_is_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        rle_to_mask({"size": [4, 4], "counts": counts})


def test_segmentation_needs_the_size_of_the_image():
    with pytest.raises(ValueError, match="-1 x -1"):
        segmentation_to_rle([[0, 0, 2, 0, 2, 2]], -1, -1)


def test_mask_must_be_bool():
    with pytest.raises(ValueError, match="uint8"):
        mask_to_rle(np.zeros((2, 2), np.uint8))


def decode_by_hand(counts):
    """COCO's text code, letter by letter: 5 bits each, differences from the third number on."""
    runs, value, shift = [], 0, 0
    for letter in counts:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(letter)
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift or min(runs, default=0) < 0 or sum(runs) != 20:
        raise ValueError(counts)
    return runs


def test_broken_encodings_are_found_as_letter_by_letter():
    rng = np.random.default_rng(0)
    texts = ["", "é", "zzzz", "\ud800"]
    for row in range(60):
        counts = mask_to_rle(rng.random((5, 4)) < 0.4)["counts"]
        at, letter = rng.integers(len(counts)), chr(rng.integers(48, 115))
        texts.append(counts[:at] + letter + counts[at + 1 :] if row % 3 == 0 else counts)
    broken = 0
    for text in texts:
        rle = {"size": [5, 4], "counts": text}
        try:
            runs = decode_by_hand(text)
        except ValueError:
            broken += 1
            for decode in (check_rle, rle_to_mask):
                with pytest.raises(ValueError):
                    decode(rle)
        else:
            check_rle(rle)
            inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(4, 5).T
            np.testing.assert_array_equal(rle_to_mask(rle), inside)
    assert 4 < broken < len(texts) - 4
