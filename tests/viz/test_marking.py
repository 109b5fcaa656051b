"""What is asked for is outlined, and every pixel of it stays the picture's."""

import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from regionlab.data.images import make_thumbnail
from regionlab.studies.ratings import RatingStore, RatingStudy
from regionlab.util import paths
from regionlab.viz.grid import LINE, ResultGrid, mark_region
from regionlab.viz.rating import RatingSheet

BOX = np.array([20.0, 10, 60, 50])
BLUE = [30, 60, 220]


def make_picture():
    """A blue thing in the box, on a ground of slow colours."""
    y, x = np.mgrid[:80, :100]
    picture = np.stack([2 * x + 30, 2 * y + 60, 200 - x], 2).astype(np.uint8)
    picture[15:45, 25:55] = BLUE
    return picture


def decode(data):
    return np.array(Image.open(BytesIO(data))).astype(int)


def test_no_pixel_inside_is_changed_and_two_lines_run_outside():
    picture = make_picture()
    marked = mark_region(picture, BOX, 100)
    np.testing.assert_array_equal(marked[10:50, 20:60], picture[10:50, 20:60])
    left = marked[30, 20 - 2 * LINE : 20]
    assert (left[:LINE] == 0).all()
    assert (left[LINE:] == 255).all()
    changed = (marked != picture).any(2)
    changed[10 - 2 * LINE : 50 + 2 * LINE, 20 - 2 * LINE : 60 + 2 * LINE] = False
    assert not changed.any()


def test_a_mask_is_outlined_as_a_box_is():
    mask = np.zeros((80, 100), bool)
    mask[10:50, 20:60] = True
    picture = make_picture()
    np.testing.assert_array_equal(mark_region(picture, mask, 50), mark_region(picture, BOX, 50))


def test_what_reaches_the_edge_is_outlined_all_around():
    picture = make_picture()
    marked = mark_region(picture, np.array([0.0, 0, 100, 80]), 100)
    np.testing.assert_array_equal(marked[2 * LINE : -2 * LINE, 2 * LINE : -2 * LINE], picture)
    assert (marked[:LINE] == 0).all()
    assert (marked[LINE : 2 * LINE, LINE:-LINE] == 255).all()


def test_nothing_meant_is_nothing_drawn():
    picture = make_picture()
    np.testing.assert_array_equal(mark_region(picture, None, 50), make_thumbnail(picture, 50))


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(80, 100\) bool mask .* not \(3, 4\) bool"):
        mark_region(make_picture(), np.zeros((3, 4), bool), 50)


def test_the_rating_sheet_shows_the_pixels_of_what_is_rated(tmp_path):
    study = RatingStudy("colours", ["a"], ["x"], 1, 0)
    picture = make_picture()
    sheet = RatingSheet(
        RatingStore(tmp_path / "ratings.sqlite", study),
        lambda query: (picture, BOX),
        lambda query, method: [picture],
        rater="anna",
        thumb=50,
    )
    shown = decode(sheet.query)
    inside = np.abs(shown[10:50, 20:60] - picture[10:50, 20:60].astype(int))
    assert np.median(inside) <= 2  # JPEG
    assert np.abs(shown[20:40, 30:50] - BLUE).max() <= 10
    np.testing.assert_allclose(shown, mark_region(picture, BOX, 100), atol=60)


def test_results_are_judged_in_their_own_colours():
    picture = make_picture()
    (thumb,) = ResultGrid([picture], outlines=[BOX], thumb=50).thumbs
    assert np.abs(decode(thumb)[20:40, 30:50] - BLUE).max() <= 10


def test_the_figure_of_the_sheet_is_drawn_by_the_sheet_s_own_function():
    notebook = json.loads((paths.ROOT / "notebooks" / "14_user_ratings.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"]]
    (figure,) = (cell for cell in cells if '"14_sheet"' in cell)
    assert "mark_region(" in figure
    assert "draw_selection" not in figure
